"""The api's check and the unpacker agree on every archive."""

from hypothesis import strategies as st

from fuzz.target import Target
from sandrun_api.errors import ApiError
from sandrun_shared.jobs import UploadKind
from support.archive_pair import agree
from support.archive_strategies import Upload, honest, hostile


def accepts(upload: Upload) -> None:
    """What an honest archive holds is what both find."""
    made = agree(upload.kind, upload.data)
    assert not isinstance(made, ApiError), made.reason
    assert made.files == upload.files
    assert made.links == upload.links


def agrees(upload: Upload) -> None:
    """On anything else they agree, whatever they say."""
    agree(upload.kind, upload.data)


def _noise(value: tuple[UploadKind, bytes]) -> None:
    agree(*value)


_HEADS = [b"", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"PK\5\6", b"PK\3\4"]
TARGETS = [
    Target("honest archives", accepts, honest(), 120),
    Target("hostile archives", agrees, hostile(), 250),
    Target(
        "noise",
        _noise,
        st.tuples(
            st.sampled_from([kind for kind in UploadKind if kind is not UploadKind.bundle]),
            st.builds(lambda head, data: head + data, st.sampled_from(_HEADS), st.binary(max_size=700)),
        ),
        100,
    ),
]
