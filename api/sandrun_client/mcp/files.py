"""Files that jobs left: as answers of get_job_file, and as resources."""

import base64

from mcp import MCPError, UriTemplate
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    BlobResourceContents,
    CallToolResult,
    ReadResourceResult,
    ResourceTemplate,
    TextResourceContents,
)

from sandrun_client import models
from sandrun_client.aio import AsyncSandrunClient
from sandrun_client.errors import SandrunError, UnknownJob
from sandrun_client.mcp import answers
from sandrun_client.mcp.arguments import GetJobFile
from sandrun_client.mcp.calls import IMAGE_TYPES
from sandrun_client.mcp.pieces import IMAGE_BYTES, piece, size_text
from sandrun_client.mcp.results import image_block, link, result

LARGEST_FILE = 32 << 20  # bytes that are held at once to show a part of them
TEMPLATE = ResourceTemplate(
    uri_template=answers.URI_TEMPLATE,
    name="job-file",
    title="File of a job",
    description="A file that a job left, as the links of its results name it.",
)
_PARSED = UriTemplate.parse(answers.URI_TEMPLATE)
_TEXT_TYPES = ("application/json", "application/javascript", "application/xml", "image/svg+xml")


async def file_result(client: AsyncSandrunClient, asked: GetJobFile) -> CallToolResult:
    """A file or a part of it. Raises SandrunError."""
    file = await _find(client, asked.job_id, asked.path)
    listed = answers.OutputFile.of(asked.job_id, file)

    def answer(encoding: str, content: str = "", offset: int = 0, rest: int | None = None) -> answers.File:
        return answers.File.model_validate(
            {
                **listed.model_dump(),
                "job_id": asked.job_id,
                "encoding": encoding,
                "content": content,
                "offset": offset,
                "next_offset": rest,
            }
        )

    title = f"{file.path}, {size_text(file.size_bytes)}, {file.mime_type}"
    if file.size_bytes > LARGEST_FILE:
        text = f"{title}: too large to be shown. `sandrun download {asked.job_id}` saves it."
        return result(answer("none"), text, [link(listed)])
    data = await client.read_file(asked.job_id, file.path)
    if asked.encoding == "base64":
        part = data[asked.offset : asked.offset + asked.limit]
        end = min(asked.offset, len(data)) + len(part)
        content = base64.b64encode(part).decode()
        rest = end if end < len(data) else None
        return result(answer("base64", content, end - len(part), rest), f"{title}, in base64:\n{content}")
    if file.mime_type in IMAGE_TYPES and len(data) <= IMAGE_BYTES:
        shown = image_block(models.Image(file.path, file.mime_type, data))
        return result(answer("none"), title, [shown])
    if not _is_text(file.mime_type, data):
        text = f'{title}: no text; the linked resource has it, or encoding="base64".'
        return result(answer("none"), text, [link(listed)])
    shown_part = piece(data, asked.offset, asked.limit)
    where = f", bytes {shown_part.start} to {shown_part.end}" if asked.offset or shown_part.next else ""
    more = f"\n[more follows: offset={shown_part.next}]" if shown_part.next else ""
    return result(
        answer("utf-8", shown_part.text, shown_part.start, shown_part.next),
        f"{title}{where}:\n{shown_part.text}{more}",
    )


async def read(client: AsyncSandrunClient, uri: str) -> ReadResourceResult:
    """The resource that is a file of a job. Raises MCPError."""
    matched = _PARSED.match(uri)
    if matched is None:
        raise MCPError(INVALID_PARAMS, f"Unknown resource: {uri}", {"uri": uri})
    try:
        file = await _find(client, str(matched["job_id"]), str(matched["path"]))
        if file.size_bytes > LARGEST_FILE:
            text = f"{file.path} has more than {LARGEST_FILE >> 20} MiB."
            raise MCPError(INVALID_PARAMS, text, {"uri": uri})
        data = await client.read_file(str(matched["job_id"]), file.path)
    except SandrunError as error:
        raise unreadable(uri, error) from error
    contents: TextResourceContents | BlobResourceContents
    if _is_text(file.mime_type, data):
        contents = TextResourceContents(uri=uri, mime_type=file.mime_type, text=data.decode())
    else:
        blob = base64.b64encode(data).decode()
        contents = BlobResourceContents(uri=uri, mime_type=file.mime_type, blob=blob)
    return ReadResourceResult(contents=[contents])


def unreadable(uri: str, error: SandrunError) -> MCPError:
    """What a client is told; a file that is not there is its mistake."""
    code = INVALID_PARAMS if isinstance(error, UnknownJob) else INTERNAL_ERROR
    return MCPError(code, f"Sandrun: {error}", {"uri": uri})


async def _find(client: AsyncSandrunClient, job_id: str, path: str) -> models.OutputFile:
    wanted = path.removeprefix("./")
    files = await client.list_outputs(job_id)
    for file in files:
        if file.path == wanted:
            return file
    names = ", ".join(file.path for file in files[:20]) or "none"
    raise UnknownJob(404, "Not found", f"The job left no file {path!r}. Its files: {names}.")


def _is_text(mime_type: str, data: bytes) -> bool:
    if b"\0" in data[:1000] or (mime_type.startswith("image/") and mime_type not in _TEXT_TYPES):
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
