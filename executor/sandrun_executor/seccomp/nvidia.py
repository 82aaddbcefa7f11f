"""The ioctls of NVIDIA's driver that a job with a GPU may use, besides those of every job.

Numbers of the driver's open kernel modules: kernel-open/common/inc/nv-ioctl-numbers.h, nv-ioctl-numa.h,
src/nvidia/arch/nvalloc/unix/include/nv_escape.h, kernel-open/nvidia-uvm/uvm_ioctl.h. They are what CUDA's
library needs for one process on one device, without the registry, I2C, display, tools, or sharing with other
processes.

The filter cannot see which file an ioctl is for. Other files of a sandbox do not know these numbers, except
FIBMAP (1) and FIGETBSZ (2), which are not listed.
"""

# The driver ignores all but the number; its library sends type F, with varying size and direction.
NVIDIA_FRONTEND_MASK = 0xFFFF
_NUMBERS = (
    *(0x27, 0x29, 0x2A, 0x2B),  # RM_ALLOC_MEMORY, RM_FREE, RM_CONTROL, RM_ALLOC
    *(0x34, 0x35, 0x41, 0x4A),  # RM_DUP_OBJECT, RM_SHARE, RM_IDLE_CHANNELS, RM_VID_HEAP_CONTROL
    *(0x4E, 0x4F, 0x54, 0x57, 0x58, 0x5E),  # RM_MAP_MEMORY, UNMAP, CONTEXT_DMA2, MAP_DMA, UNMAP_DMA, MAPPING
    *(200, 201, 206, 207),  # CARD_INFO, REGISTER_FD, ALLOC_OS_EVENT, FREE_OS_EVENT
    *(210, 212, 214, 215, 218),  # CHECK_VERSION_STR, ATTACH_GPUS, SYS_PARAMS, NUMA_INFO, WAIT_OPEN_COMPLETE
)
NVIDIA_FRONTEND = tuple(ord("F") << 8 | number for number in _NUMBERS)
NVIDIA_UVM_START = (0x30000001, 0x30000002)  # UVM_INITIALIZE, UVM_DEINITIALIZE
NVIDIA_UVM = (
    *range(23, 32),  # range groups, address spaces, channels, peer access
    *(33, 34),  # MAP_EXTERNAL_ALLOCATION, FREE
    *range(37, 48),  # devices, pageable memory, preferred location, read duplication, accessed by
    *(51, 53, 54, 55),  # MIGRATE, MIGRATE_RANGE_GROUP, atomics of the whole system
    *(65, 66, 68),  # dynamic parallelism, UNMAP_EXTERNAL, ALLOC_SEMAPHORE_POOL
    *range(70, 76),  # pageable memory on the device, VALIDATE_VA_RANGE, external ranges, MM_INITIALIZE
)
