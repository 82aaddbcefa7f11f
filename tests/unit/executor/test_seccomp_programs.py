"""Interpreters and what programs commonly use, under the system call filter alone."""

import os
import select
import socket
import subprocess
from pathlib import Path

import pytest

from sandrun_executor.seccomp import filter as seccomp
from sandrun_sandbox import linux_unsafe

SECONDS = 60.0
PYTHON_PROGRAM = r"""
import concurrent.futures, mmap, multiprocessing, os, socket, sqlite3, struct, subprocess, tempfile

def square(x):
    return x * x

def main():
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(square, range(4)) == [0, 1, 4, 9]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(square, range(8))) == 140
    with tempfile.TemporaryDirectory() as folder:
        base = sqlite3.connect(folder + "/x.db")
        base.execute("pragma journal_mode=wal")
        base.execute("create table t (x)")
        base.executemany("insert into t values (?)", [(1,), (2,)])
        base.commit()
        assert base.execute("select sum(x) from t").fetchone() == (3,)
        base.close()
    left, right = socket.socketpair()
    left.send(b"x")
    assert right.recv(1) == b"x"
    server = socket.create_server(("127.0.0.1", 0), reuse_port=True)
    with socket.create_connection(server.getsockname()) as tcp:
        for level, name, value in (
            ("SOL_SOCKET", "SO_KEEPALIVE", 1), ("SOL_SOCKET", "SO_LINGER", struct.pack("ii", 1, 1)),
            ("SOL_SOCKET", "SO_RCVTIMEO", struct.pack("ll", 1, 0)), ("SOL_SOCKET", "SO_SNDBUF", 1 << 16),
            ("IPPROTO_TCP", "TCP_NODELAY", 1), ("IPPROTO_TCP", "TCP_CORK", 1), ("IPPROTO_TCP", "TCP_KEEPIDLE", 9),
            ("IPPROTO_TCP", "TCP_USER_TIMEOUT", 900), ("IPPROTO_IP", "IP_TOS", 16),
        ):
            tcp.setsockopt(getattr(socket, level), getattr(socket, name), value)
        assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for level, name in (
        ("SOL_SOCKET", "SO_BROADCAST"), ("SOL_SOCKET", "SO_REUSEADDR"), ("IPPROTO_IP", "IP_TTL"),
        ("IPPROTO_IP", "IP_MULTICAST_TTL"), ("IPPROTO_IP", "IP_MULTICAST_LOOP"),
    ):
        udp.setsockopt(getattr(socket, level), getattr(socket, name), 1)
    assert socket.getaddrinfo("localhost", 80)
    os.sync()
    assert mmap.mmap(-1, 4096).write(b"x") == 1
    with open(os.memfd_create("x"), "w") as file:
        file.write("x")
    assert subprocess.run(["/bin/echo", "child"], capture_output=True, check=True).stdout == b"child\n"
    print("done")

if __name__ == "__main__":
    main()
"""
BASH_PROGRAM = (
    "for i in 1 2 3; do echo $i | cat & done; wait; x=$(ls / | wc -l); [ $x -gt 3 ];"
    " diff <(echo a) <(echo a) && sort <<< done"
)
RUBY_PROGRAM = """
require 'socket'
server = TCPServer.new '127.0.0.1', 0
client = TCPSocket.new '127.0.0.1', server.addr[1]
client.setsockopt Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1
server.accept.puts 'done'
puts client.gets
"""
PHP_PROGRAM = """<?php
$server = stream_socket_server('tcp://127.0.0.1:0');
$client = stream_socket_client('tcp://' . stream_socket_get_name($server, false));
stream_set_timeout($client, 5);
fwrite(stream_socket_accept($server), "done\\n");
echo fgets($client);
"""
R_PROGRAM = """
cluster <- parallel::makeCluster(2)
stopifnot(identical(unlist(parallel::clusterApply(cluster, c(1, 4), sqrt)), c(1, 2)))
parallel::stopCluster(cluster)
cat("done\\n")
"""
PERL_PROGRAM = (
    "my $pid = fork; exit 0 if !$pid; waitpid $pid, 0; die if $?;"
    ' open my $f, "-|", "echo", "done" or die; print <$f>;'
)
NODE_PROGRAM = (
    "const http = require('http'), net = require('net'), udp = require('dgram').createSocket('udp4');"
    "const server = http.createServer((request, answer) => answer.end()).listen(0, '127.0.0.1', () => {"
    " const agent = new http.Agent({keepAlive: true, keepAliveMsecs: 5000});"
    " http.get({agent, host: '127.0.0.1', port: server.address().port}, a => {"
    "  a.resume(); a.on('end', () => { agent.destroy(); server.close(); }); }); });"
    "udp.bind(0, () => { udp.setBroadcast(true); udp.setTTL(9); udp.setMulticastTTL(9); udp.close(); });"
    "const {Worker} = require('worker_threads');"
    "const w = new Worker(\"require('worker_threads').parentPort.postMessage(6 * 7)\", {eval: true});"
    "w.on('message', m => { if (m !== 42) process.exit(1);"
    " process.stdout.write(require('child_process').execFileSync('/bin/echo', ['done'])); });"
)
JAVA_PROGRAM = """
import com.sun.net.httpserver.HttpServer;
import java.net.*;
import java.net.http.*;
import java.nio.channels.DatagramChannel;

class Program {
    public static void main(String[] words) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.createContext("/", answer -> { answer.sendResponseHeaders(200, -1); answer.close(); });
        server.start();
        URI address = URI.create("http://127.0.0.1:" + server.getAddress().getPort() + "/");
        HttpClient.newHttpClient().send(
            HttpRequest.newBuilder(address).build(), HttpResponse.BodyHandlers.ofString());
        try (Socket socket = new Socket("127.0.0.1", server.getAddress().getPort())) {
            socket.setTcpNoDelay(true);
            socket.setKeepAlive(true);
            socket.setSoLinger(true, 1);
            socket.setTrafficClass(4);
            socket.setReceiveBufferSize(1 << 16);
        }
        server.stop(0);
        try (DatagramSocket datagrams = new DatagramSocket()) { datagrams.setBroadcast(true); }
        try (MulticastSocket group = new MulticastSocket(0)) { group.setTimeToLive(2); }
        DatagramChannel.open().close();
        if (NetworkInterface.networkInterfaces().count() == 0) System.exit(1);
        System.out.println("done");
        System.exit(0);
    }
}
"""
PROGRAMS = {
    "python3": (["-I"], PYTHON_PROGRAM, "program.py"),
    "bash": ([], BASH_PROGRAM, "program.sh"),
    "perl": ([], PERL_PROGRAM, "program.pl"),
    "node": ([], NODE_PROGRAM, "program.js"),
    "ruby": ([], RUBY_PROGRAM, "program.rb"),
    "php": ([], PHP_PROGRAM, "program.php"),
    "Rscript": ([], R_PROGRAM, "program.R"),
    "java": ([], JAVA_PROGRAM, "Program.java"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_interpreter_works(name: str, tmp_path: Path) -> None:
    path = f"/usr/bin/{name}"
    if not os.access(path, os.X_OK):
        pytest.skip(f"no {path}")
    options, text, file_name = PROGRAMS[name]
    file = tmp_path / file_name
    file.write_text(text)
    code = seccomp.compile_filter()

    def confine() -> None:
        linux_unsafe.prctl(linux_unsafe.PR_SET_NO_NEW_PRIVS, 1)
        linux_unsafe.SeccompProgram(code).install()

    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [path, *options, str(file)],
            preexec_fn=confine,  # noqa: PLW1509 (no threads here)
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        )
    pidfd = os.pidfd_open(process.pid)
    try:
        ended = select.select([pidfd], [], [], SECONDS)[0]
    finally:
        os.close(pidfd)
        if process.poll() is None:
            process.kill()
        process.wait()
    printed = (tmp_path / "out").read_text()
    assert ended, printed
    assert (process.returncode, printed.splitlines()[-1:]) == (0, ["done"]), printed


def _answer(question: bytes) -> bytes:
    """A name server's answer of one address, 192.0.2.7 (RFC 1035, section 4)."""
    end = question.index(b"\0", 12) + 5
    header = question[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
    return header + question[12:end] + b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\4" + bytes((192, 0, 2, 7))


# The C library asks the server that is put into its state (resolver(3), struct __res_state).
RESOLVER_PROGRAM = """
import ctypes, socket, struct, sys
libc = ctypes.CDLL(None)
state = libc.__res_state
state.restype = ctypes.c_void_p
query = libc.res_query if hasattr(libc, "res_query") else ctypes.CDLL("libresolv.so.2").__res_query
assert libc.__res_init() == 0
server = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(int(sys.argv[1])), socket.inet_aton("127.0.0.1"))
ctypes.memmove(state() + 16, struct.pack("i", 1) + server, 20)
answer = ctypes.create_string_buffer(512)
length = query(b"name.example", 1, 1, answer, 512)
print(socket.inet_ntoa(answer.raw[length - 4:length]) if length > 0 else "no answer")
"""


@pytest.mark.parametrize(("resolver", "said"), [(True, "192.0.2.7"), (False, "no answer")])
def test_name_servers_are_asked_by_proxies_only(resolver: bool, said: str) -> None:
    code = seccomp.compile_filter(resolver=resolver)

    def confine() -> None:
        linux_unsafe.prctl(linux_unsafe.PR_SET_NO_NEW_PRIVS, 1)
        linux_unsafe.SeccompProgram(code).install()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        process = subprocess.Popen(
            ["/usr/bin/python3", "-Ic", RESOLVER_PROGRAM, str(server.getsockname()[1])],
            preexec_fn=confine,  # noqa: PLW1509 (no threads here)
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            while process.stdout not in select.select([server, process.stdout], [], [], SECONDS)[0]:
                question, client = server.recvfrom(512)
                server.sendto(_answer(question), client)
            printed = process.communicate(timeout=SECONDS)[0]
        finally:
            process.kill()
            process.wait()
    assert printed.strip() == said
