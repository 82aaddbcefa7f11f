"""A page to run code in Sandrun: `pip install streamlit ./client; streamlit run streamlit_app.py`

SANDRUN_URL is the server; if its `trusted_proxies` name this page's host, each visitor has a quota.
"""

import shlex

import streamlit as st

from sandrun_client import SandrunClient, SandrunError, Status

SHOWN_BYTES = 20 << 20  # of all files that a job left; this page holds them in memory
WORDS = {
    "ok": "It ended well.",
    "nonzero_exit": "It ended with exit code {0.exit_code}.",
    "signaled": "It was ended by signal {0.signal}.",
    "wall_time_limit": "It ran longer than its time limit.",
    "cpu_time_limit": "It used more CPU time than it may.",
    "memory_limit": "It ran out of memory.",
    "output_limit": "It printed more than it may.",
    "disk_limit": "It ran out of disk space.",
}


def connect() -> SandrunClient:
    """A client on behalf of the visitor."""
    address = st.context.ip_address  # None on this machine
    return SandrunClient(headers={"X-Forwarded-For": address} if address else {}, retries=1, max_retry_wait=5)


def run() -> None:
    """Run what the form holds; the result stays in the session, nothing stays on the server."""
    st.session_state.pop("result", None)
    form = st.session_state
    more = {file.name: file.getvalue() for file in form.uploads or []}
    options = {"interpreter": form.interpreter, "stdin": form.stdin, "timeout": float(form.timeout)}
    with connect() as client:
        job = client.submit_code(form.code, files=more, args=shlex.split(form.args), **options)
        try:
            text, box = "", st.empty()
            for piece in client.follow(job.job_id):
                if isinstance(piece, Status):
                    break
                text += piece.text
                box.code(text, language=None)
            box.empty()
            files, room = {}, SHOWN_BYTES
            for file in client.list_outputs(job.job_id) if piece.output_files else ():
                if (room := room - file.size_bytes) >= 0:
                    files[file.path] = (file.mime_type, client.read_file(job.job_id, file.path))
            st.session_state.result = (piece, client.get_logs(job.job_id), files)
        finally:
            client.cancel(job.job_id)


st.set_page_config("Sandrun", layout="wide")
st.title("Run code in Sandrun")
try:
    with connect() as found, st.form("job"):
        st.selectbox("Language", found.test_connection().interpreters, key="interpreter")
        st.text_area("Code", 'print("hello")', height=240, key="code")
        st.text_input("Arguments", key="args")
        st.text_area("Standard input", key="stdin")
        st.file_uploader("More files", accept_multiple_files=True, key="uploads")
        st.slider("Seconds it may take", 1, 60, 10, key="timeout")
        if st.form_submit_button("Run", type="primary"):
            run()
except (SandrunError, ValueError) as error:  # the latter for arguments with an open quote
    st.error(str(error))
if "result" in st.session_state:
    status, logs, left = st.session_state.result
    (st.success if status.ok else st.warning)(WORDS.get(status.verdict, status.detail).format(status))
    for text in filter(None, (logs.stdout, logs.stderr)):
        st.code(text, language=None)
    for path, (kind, data) in left.items():
        if kind in ("image/png", "image/jpeg", "image/gif", "image/webp"):
            st.image(data, caption=path)
        st.download_button(f"{path} ({len(data)} bytes)", data, path.rsplit("/", 1)[-1], kind)
    st.caption(f"{status.metrics.cpu_seconds:.2f} s of CPU, {status.metrics.memory_mb:.0f} MiB")
