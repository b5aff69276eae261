package slirp4netns

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// deniedCalls are those that nothing here needs any more, and that somebody who
// has taken over this process would like to have. Each exists on every
// architecture that Go has.
var deniedCalls = []uint32{
	// Other programs, and other processes' memory and descriptors.
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_PTRACE,
	unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
	// Namespaces and mounts.
	unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_CHROOT, unix.SYS_PIVOT_ROOT, unix.SYS_MOUNT, unix.SYS_UMOUNT2,
	unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
	// Other identities.
	unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID, unix.SYS_SETGROUPS,
	// Large parts of the kernel, or all of it.
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP,
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_REBOOT,
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_PERSONALITY,
}

// auditArch is the architecture in struct seccomp_data; others, such as 32-bit
// calls on a 64-bit kernel, have other numbers.
var auditArch = map[string]uint32{
	"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64, "riscv64": unix.AUDIT_ARCH_RISCV64,
	"ppc64le": unix.AUDIT_ARCH_PPC64LE, "s390x": unix.AUDIT_ARCH_S390X, "loong64": unix.AUDIT_ARCH_LOONGARCH64,
	"386": unix.AUDIT_ARCH_I386, "arm": unix.AUDIT_ARCH_ARM,
}[runtime.GOARCH]

// x32 calls have this bit set in their number (__X32_SYSCALL_BIT).
const x32Bit = 0x40000000

// writeCalls change the file system without an open file. Those that remove are
// apart, since the API socket is removed at the end.
var (
	writeCalls = append([]uint32{
		unix.SYS_MKDIRAT, unix.SYS_MKNODAT, unix.SYS_LINKAT, unix.SYS_SYMLINKAT, unix.SYS_RENAMEAT2,
		unix.SYS_FCHMODAT, unix.SYS_FCHOWNAT, unix.SYS_UTIMENSAT, unix.SYS_TRUNCATE, unix.SYS_FALLOCATE,
		unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR,
		unix.SYS_OPENAT2, // whose flags a filter cannot see
	}, olderWriteCalls...)
	removeCalls = append([]uint32{unix.SYS_UNLINKAT}, olderRemoveCalls...)
)

// A filter says which calls are to fail.
type filter struct {
	// Calls are the system calls of deniedCalls.
	Calls bool
	// Writes are opening a file for writing, and writeCalls; Removals are
	// removeCalls.
	Writes, Removals bool
}

// program is what the kernel runs for every call: EPERM for those that are
// denied and for other architectures.
func (f filter) program() []bpf.Instruction {
	const number, arch, arguments = 0, 4, 16 // offsets in struct seccomp_data
	deny := bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: arch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		deny,
		bpf.LoadAbsolute{Off: number, Size: 4},
	}
	if runtime.GOARCH == "amd64" {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpLessThan, Val: x32Bit, SkipTrue: 1}, deny)
	}
	for _, call := range f.denied() {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: call, SkipTrue: 1}, deny)
	}
	if f.Writes {
		for call, argument := range opens {
			const writing = unix.O_ACCMODE | unix.O_CREAT | unix.O_TRUNC
			program = append(program,
				bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: call, SkipTrue: 3},
				bpf.LoadAbsolute{Off: arguments + 8*argument, Size: 4}, // all these architectures are little-endian
				bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: writing, SkipTrue: 1},
				deny,
				bpf.LoadAbsolute{Off: number, Size: 4})
		}
	}
	return append(program, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW})
}

func (f filter) denied() []uint32 {
	var calls []uint32
	if f.Calls {
		calls = append(calls, deniedCalls...)
	}
	if f.Writes {
		calls = append(calls, writeCalls...)
	}
	if f.Removals {
		calls = append(calls, removeCalls...)
	}
	return calls
}

// apply has the kernel run the filter on all threads at once, and on all that
// there will be. That works with cgo too.
func (f filter) apply() error {
	if auditArch == 0 || f.Writes && opens == nil {
		return fmt.Errorf("no list of system calls for %s", runtime.GOARCH)
	}
	raw, err := bpf.Assemble(f.program())
	if err != nil {
		return fmt.Errorf("assemble the filter: %w", err)
	}
	program := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		program[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	// The thread that asks must have given up new privileges itself; the kernel
	// has the others follow.
	header := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&header)))
	if errno != 0 {
		return fmt.Errorf("apply the filter: %w", errno)
	}
	return nil
}
