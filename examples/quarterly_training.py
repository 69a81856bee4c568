"""A flow of one's own: `python examples/quarterly_training.py` serves it, four times a year."""

from prefect import flow

from isthmus.flows import HorizontalJob, Model, publish_report, train_horizontal


@flow
async def quarterly_training(job: HorizontalJob, at_least: float = 0.7) -> Model | str:
    model = await train_horizontal(job)  # every hospital keeps the model; no row leaves any of them
    await publish_report(job, model)
    reached = model.summary["metrics"].get("auc")
    if reached is None or reached["value"] < at_least:
        return f"AUC below {at_least}, or withheld: somebody should look before it is used"
    return model


if __name__ == "__main__":
    job = HorizontalJob.from_file("examples/hospitals.yaml")
    quarterly_training.serve("quarterly-training", cron="0 3 1 */3 *", parameters={"job": job.canonical()})
