"""A flow of one's own: `python examples/yearly_transfer.py` serves it, once a year."""

from prefect import flow

from isthmus.flows import Model, TransferJob, align, publish_report, train_transfer


@flow
async def yearly_transfer(job: TransferJob, at_least: int = 100) -> Model | str:
    shared = await align(job)  # a handle: count and digest, never identifiers
    if shared.count is None or shared.count < at_least:
        return "too few shared patients this year"
    model = await train_transfer(job, shared)  # the target keeps what its gate chose
    await publish_report(job, model)
    if model.summary["chosen"] == "target":  # None where the target's policy does not tell
        return "without the source's part the loss is lower"
    return model


if __name__ == "__main__":
    job = TransferJob.from_file("examples/transfer.yaml")
    yearly_transfer.serve("yearly-transfer", cron="0 3 1 1 *", parameters={"job": job.canonical()})
