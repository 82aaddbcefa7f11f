"""The job of `sandrun doctor --gpu`: uses the driver's library as CUDA programs do, and no CUDA library.

Prints one line of JSON for each step. Its arguments: nothing, or `leave` (fill memory and end without freeing
it), or `look` (whether what another job left can be read).
"""

PROGRAM = '''\
import ctypes, json, os, sys

MARK = bytes.fromhex("5a4ed20951c0ffee8badf00d1234abcd")
PIECE = 64 << 20
word, size = ctypes.c_uint64, ctypes.c_size_t

def say(step, **more):
    print(json.dumps({"step": step, **more}), flush=True)

def call(name, *values):
    code = getattr(cuda, name)(*values)
    if code:
        text = ctypes.c_char_p()
        cuda.cuGetErrorName(code, ctypes.byref(text))
        raise SystemExit(f"{name}: {code} {(text.value or b'').decode()}")

def integer(name, *values):
    value = ctypes.c_int()
    call(name, ctypes.byref(value), *values)
    return value.value

def allocate(count):
    place = word()
    call("cuMemAlloc_v2", ctypes.byref(place), size(count))
    return place

def free_bytes():
    free, total = size(), size()
    call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return free.value, total.value

cuda = ctypes.CDLL("libcuda.so.1")
say("library")
call("cuInit", 0)
say("cuInit", version=integer("cuDriverGetVersion"))
count = integer("cuDeviceGetCount")
say("cuDeviceGetCount", count=count, nodes=sorted(n for n in os.listdir("/dev") if n.startswith("nvidia")))
if count != 1:
    raise SystemExit(f"{count} devices instead of one")
device = integer("cuDeviceGet", 0)
name = ctypes.create_string_buffer(100)
call("cuDeviceGetName", name, 100, device)
capability = [integer("cuDeviceGetAttribute", number, device) for number in (75, 76)]
say("cuDeviceGet", name=name.value.decode(), capability=capability)
context = ctypes.c_void_p()
call("cuCtxCreate_v2", ctypes.byref(context), 0, device)
free, total = free_bytes()
say("cuCtxCreate", free=free, total=total)

if sys.argv[1:] == ["leave"]:
    pattern = ctypes.create_string_buffer(MARK * (PIECE // len(MARK)), PIECE)
    filled = min(2 << 30, free // 2) // PIECE
    for _ in range(filled):
        call("cuMemcpyHtoD_v2", allocate(PIECE), pattern, size(PIECE))
    call("cuCtxSynchronize")
    say("left", bytes=filled * PIECE)
    sys.stdout.flush()
    os._exit(0)
if sys.argv[1:] == ["look"]:
    piece, marked, other = ctypes.create_string_buffer(PIECE), 0, 0
    looked = min(8 << 30, free * 3 // 4) // PIECE
    for _ in range(looked):
        call("cuMemcpyDtoH_v2", piece, allocate(PIECE), size(PIECE))
        marked += MARK in piece.raw
        other += any(piece.raw)
    say("looked", bytes=looked * PIECE, marked_pieces=marked, pieces_not_zero=other)
    raise SystemExit("another job's memory can be read" if marked else 0)

place, back = allocate(PIECE), ctypes.create_string_buffer(PIECE)
call("cuMemsetD8_v2", place, ctypes.c_ubyte(0xA5), size(PIECE))
call("cuMemcpyDtoH_v2", back, place, size(PIECE))
if back.raw != b"\\xa5" * PIECE:
    raise SystemExit("what was set is not what was read")
say("memory", bytes=PIECE)

target = "6.3\\n.target sm_75" if capability >= [7, 5] else "6.0\\n.target sm_%d%d" % tuple(capability)
source = """.version %s
.address_size 64
.visible .entry add(.param .u64 data)
{
    .reg .b32 %%r<6>;
    .reg .b64 %%d<4>;
    ld.param.u64 %%d1, [data];
    mov.u32 %%r1, %%ctaid.x;
    mov.u32 %%r2, %%ntid.x;
    mov.u32 %%r3, %%tid.x;
    mad.lo.s32 %%r4, %%r1, %%r2, %%r3;
    mul.wide.s32 %%d2, %%r4, 4;
    add.s64 %%d3, %%d1, %%d2;
    ld.global.u32 %%r5, [%%d3];
    add.s32 %%r5, %%r5, %%r4;
    st.global.u32 [%%d3], %%r5;
    ret;
}
""" % target
module, function = ctypes.c_void_p(), ctypes.c_void_p()
call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(source.encode()))
call("cuModuleGetFunction", ctypes.byref(function), module, b"add")
call("cuMemsetD32_v2", place, ctypes.c_uint(7), size(1 << 20))
arguments = (ctypes.c_void_p * 1)(ctypes.addressof(place))
call("cuLaunchKernel", function, 4096, 1, 1, 256, 1, 1, 0, None, arguments, None)
call("cuCtxSynchronize")
numbers = (ctypes.c_uint32 * (1 << 20))()
call("cuMemcpyDtoH_v2", numbers, place, size(4 << 20))
if any(number != 7 + index for index, number in enumerate(numbers)):
    raise SystemExit("the kernel computed something else")
say("kernel", threads=1 << 20)

pinned = ctypes.c_void_p()
call("cuMemAllocHost_v2", ctypes.byref(pinned), size(16 << 20))
say("pinned", bytes=16 << 20)
shared = word()
call("cuMemAllocManaged", ctypes.byref(shared), size(1 << 20), 1)
ctypes.memset(shared.value, 3, 1 << 20)
call("cuMemsetD8_v2", shared, ctypes.c_ubyte(4), size(1 << 20))
call("cuCtxSynchronize")
if ctypes.string_at(shared.value, 1 << 20) != b"\\x04" * (1 << 20):
    raise SystemExit("managed memory is not what was set")
say("managed", bytes=1 << 20)
call("cuCtxDestroy_v2", context)
say("done")
'''
