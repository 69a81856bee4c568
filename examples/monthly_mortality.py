"""A flow of one's own: `python examples/monthly_mortality.py` serves it, once a month."""

from prefect import flow

from isthmus.flows import Model, VerticalJob, align, publish_report, train_vertical


@flow
async def monthly_mortality(job: VerticalJob, at_least: int = 1_000) -> Model | str:
    shared = await align(job)  # a handle: count and digest, never identifiers
    if shared.count is None or shared.count < at_least:
        return "too few shared patients this month"
    model = await train_vertical(job, shared)  # each party keeps its own part
    await publish_report(job, model)
    return model


if __name__ == "__main__":
    job = VerticalJob.from_file("examples/vertical.yaml")
    monthly_mortality.serve("monthly-mortality", cron="0 3 1 * *", parameters={"job": job.canonical()})
