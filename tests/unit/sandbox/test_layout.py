"""Constants of the sandbox's layout that other code repeats, because it cannot import them."""

from sandrun_sandbox import layout
from sandrun_shared import environments
from sandrun_shared.languages import BY_NAME


def test_environments_are_built_for_where_they_will_be() -> None:
    assert (environments.PLACE, environments.HOME) == (layout.ENVIRONMENT, layout.HOME)


def test_python_is_the_machines() -> None:
    assert environments.INTERPRETERS["python3"] == BY_NAME["python3"].command[0] == layout.PYTHON
