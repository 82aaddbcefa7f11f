"""The web page in a real browser, in front of the real service."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from support import browser as browsers
from support.fixtures import _root
from support.service import Service

__all__ = ["_root"]

JOBS_PER_HOUR = 8


@pytest.fixture(scope="package")
def service(_root: None) -> Iterator[Service]:
    """One with quotas, behind a proxy: every test comes from an address of its own."""
    quota = {
        "CPU_SECONDS_PER_MINUTE": 10,
        "JOBS_PER_HOUR": JOBS_PER_HOUR,
        "CONCURRENT_JOBS": 1,
        "QUEUED_JOBS": 2,
    }
    environment = {f"SANDRUN_QUOTA__{key}": str(value) for key, value in quota.items()}
    with Service(environment={**environment, "SANDRUN_API__TRUSTED_PROXIES": "127.0.0.1"}) as running:
        yield running


@pytest.fixture(scope="package")
def browser(_root: None) -> Iterator[Browser]:
    """The browser that all tests share."""
    with browsers.browser() as launched:
        yield launched


@pytest.fixture
def address(request: pytest.FixtureRequest, counter: Iterator[int]) -> str:
    """The client that the test is."""
    return f"198.51.100.{next(counter)}"


@pytest.fixture(scope="package")
def counter() -> Iterator[int]:
    """Numbers that no test had before."""
    return iter(range(1, 255))


@pytest.fixture
def visit(browser: Browser, service: Service, address: str) -> Iterator[Callable[..., browsers.Visit]]:
    """Opens the page; options are those of a browser context. Nothing it complains of goes unseen."""
    visits = []

    def opened(path: str = "/", **options: Any) -> browsers.Visit:
        context = browser.new_context(
            base_url=f"http://127.0.0.1:{service.port}",
            extra_http_headers={"X-Forwarded-For": address},
            **{"viewport": {"width": 1280, "height": 860}, **options},
        )
        made = browsers.Visit(context)
        visits.append(made)
        made.page.goto(path)
        made.page.locator("html[data-ready]").wait_for()
        return made

    yield opened
    for made in visits:
        made.context.close()
    assert [complaint for made in visits for complaint in made.complaints] == []
