"""A flow of one's own: `python examples/weekly_counts.py` serves it, every Monday."""

from prefect import flow

from isthmus.flows import Model, StatisticsJob, measure, publish_report


@flow
async def weekly_counts(job: StatisticsJob) -> Model:
    found = await measure(job)  # sums over all hospitals, without what small groups would give away
    await publish_report(job, found)
    return found


if __name__ == "__main__":
    job = StatisticsJob.from_file("examples/statistics.yaml")
    weekly_counts.serve("weekly-counts", cron="0 6 * * 1", parameters={"job": job.canonical()})
