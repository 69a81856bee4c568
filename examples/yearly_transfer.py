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
    return model if model.summary["chosen"] == "transferred" else "the source's part did not help"


if __name__ == "__main__":
    job = TransferJob.from_file("examples/transfer.yaml")
    yearly_transfer.serve("yearly-transfer", cron="0 3 1 1 *", parameters={"job": job.canonical()})
