"""Prefect's UI in a browser, as far as a person goes who starts a job, watches it, schedules it and stops it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from playwright.sync_api import Locator, Page, Response, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
WIDTH, HEIGHT = 1400, 1000
MOST_HEIGHT = 16_000  # of a picture that Chromium takes
TRIES = 3
TIMEOUT_MS = 120_000  # of a click or a page, on a machine that has other work


class Ui:
    """A browser at `address`, the UI's. Screenshots go into `shots`, numbered as they come."""

    def __init__(self, shots: Path) -> None:
        self.address, self._shots = "", shots
        self.taken, self.refused = list[str](), list[str]()  # screenshots, and answers of the server that were errors

    def __enter__(self) -> Self:
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        self.page: Page = self._browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        self.page.set_default_timeout(TIMEOUT_MS)
        self.page.on("response", self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            self.shot("where-it-failed")
            answers = "\n".join(self.refused)
            (self._shots / "where-it-failed.txt").write_text(f"{self.page.url}\n{answers}\n{self.text()}\n")
        self._browser.close()
        self._playwright.stop()

    def shot(self, what: str, *, settle_s: float = 2.0) -> None:
        """Take a screenshot, once the page has come to rest."""
        self.page.wait_for_timeout(settle_s * 1000)
        name = f"{len(self.taken) + 1:02d}-{what}.png"
        self.page.screenshot(path=self._shots / name)
        self.taken.append(name)

    # --- deployments and their form -----------------------------------------------------------------------------------

    def deployments(self) -> str:
        """Open the list of deployments; its text."""
        self.page.goto(f"{self.address}/deployments")
        self.page.get_by_text("Deployments", exact=True).first.wait_for()
        self.page.get_by_text("vertical", exact=True).first.wait_for()
        return self.page.inner_text("body")

    def deployment(self, deployment: str) -> None:
        """Open the page of a deployment."""
        self.page.goto(f"{self.address}/deployments/deployment/{deployment}")
        self._button("Run").wait_for()

    def custom_run(self) -> None:
        """From the deployment's page: Run, Custom run."""
        self._button("Run").click()
        self.page.get_by_role("menuitem", name="Custom run").click()
        self.field("Name").first.wait_for()

    def field(self, label: str) -> Locator:
        """A field of the form, whether or not the UI says that it is optional."""
        return self.page.get_by_label(re.compile(rf"^{re.escape(label)}( \(Optional\))?$"))

    def labels(self) -> list[str]:
        """All labels of the form, without what the UI adds to them."""
        return [text.removesuffix(" (Optional)") for text in self.page.locator("label").all_inner_texts()]

    def tabs(self) -> list[str]:
        """All tabs of the form, of which each choice has some."""
        return self.page.get_by_role("tab").all_inner_texts()

    def chosen(self) -> list[str]:
        """Those that are chosen."""
        return self.page.get_by_role("tab", selected=True).all_inner_texts()

    def whole_form(self, what: str) -> None:
        """A screenshot of all of a form, which has a scroll bar of its own."""
        tall = "Math.max(...Array.from(document.querySelectorAll('*')).map(e => e.scrollHeight))"
        self.page.set_viewport_size({"width": WIDTH, "height": min(MOST_HEIGHT, int(self.page.evaluate(tall)))})
        self.shot(what)
        self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})

    def fill(self, values: Mapping[str, str]) -> None:
        """Type into fields of the form."""
        for label, value in values.items():
            self.field(label).fill(value)

    def submit(self) -> str:
        """Start what the form says, and open the run's page; the run's id."""
        self._send("Submit", "/create_flow_run")
        self._button("View run").click()
        self.page.wait_for_url("**/flow-run/*")
        found = re.search(r"/flow-run/([0-9a-f-]{36})", self.page.url)
        assert found, self.page.url
        return found[1]

    def schedule(self, cron: str) -> None:
        """On the deployment's page: set a schedule, and nothing else."""
        self._button("Schedule").click()
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_role("tab", name="Cron").click()
        dialog.locator("input[name='schedule.cron']").fill(cron)
        self.shot("cron")
        self._send("Save", "/schedules")
        dialog.wait_for(state="hidden")

    def schedules(self) -> str:
        """On the deployment's page: how the UI says the schedule."""
        said = self.page.get_by_text(re.compile("^At [0-9]"))
        said.first.wait_for()
        return said.first.inner_text()

    def upcoming(self) -> str:
        """On the deployment's page: the text of what is due."""
        self.tab("Upcoming")
        self.page.get_by_text("Scheduled", exact=True).first.wait_for()
        return self.page.inner_text("body")

    # --- a run --------------------------------------------------------------------------------------------------------

    def run(self, run: str) -> None:
        """Open the page of a run."""
        self.page.goto(f"{self.address}/runs/flow-run/{run}")
        self.page.get_by_role("tab", name="Artifacts").wait_for()

    def tab(self, name: str) -> None:
        """Go to a tab of the page."""
        self.page.get_by_role("tab", name=name).click()

    def text(self) -> str:
        """What the page says."""
        return self.page.inner_text("body")

    def see(self, text: str) -> None:
        """Wait until the page says it."""
        self.page.get_by_text(text).first.wait_for()

    def artifact(self, key: str) -> str:
        """From a run's page: open an artifact; what it says."""
        self.tab("Artifacts")
        self.page.get_by_text(key, exact=True).click()
        self.page.get_by_role("tab", name="Raw").wait_for()
        self.page.wait_for_timeout(2000)
        return self.text()

    def plots(self) -> int:
        """How many pictures of an artifact have been drawn."""
        drawn = "Array.from(document.images).filter(i => i.src.startsWith('data:image') && i.naturalWidth > 0).length"
        found: int = self.page.evaluate(drawn)
        return found

    def cancel(self) -> None:
        """From a run's page: cancel it, with all its parts."""
        self.page.get_by_role("button", name="Open menu").first.click()
        self.page.get_by_role("menuitem", name="Cancel").click()
        dialog = self.page.get_by_role("alertdialog")
        dialog.wait_for()
        self.shot("cancel")
        dialog.get_by_role("button", name="Cancel Flow Run").click()

    def _send(self, button: str, path: str) -> None:
        """Click, and click again if the server answers that it is too busy: SQLite, where a machine has other work."""
        for _ in range(TRIES):
            with self.page.expect_response(lambda answer: answer.url.endswith(path)) as told:
                self._button(button).click()
            if told.value.status < 500:
                return

    def _note(self, answer: Response) -> None:
        if answer.status >= 400:
            self.refused.append(f"{answer.status} {answer.request.method} {answer.url}")

    def _button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)
