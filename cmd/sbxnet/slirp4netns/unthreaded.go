package slirp4netns

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// # A moment without threads
//
// The kernel lets only a process with a single thread make a user namespace for
// itself (unshare(2)), and a Go program has threads before main runs. Its
// children could, but it is this process that callers have the ID of. What stays
// the same process and has one thread is what execve has just started. So this
// program executes a tiny one that makes a few system calls and executes this
// program anew, which finds itself where it wanted to be.
//
// The tiny program is written here, instruction by instruction, into a file in
// memory: it has constants for arguments, looks at no result, and hands on its
// own arguments and environment. If a call fails, what is executed anew finds
// that nothing has changed.

// A call is a system call with what it is given.
type call struct {
	number uintptr
	args   []arg
}

// An arg is a number, or something that only the tiny program knows.
type arg struct {
	value uintptr
	kind  argKind
}

type argKind uint8

const (
	number    argKind = iota
	data              // value is an offset in the program's data
	arguments         // argv, at the start of the stack
	environment
)

func num(v uintptr) arg { return arg{value: v} }

// base is where the program lies in memory: where the linker puts one.
const base = 0x400000

// An unthreaded program in the making.
type unthreaded struct {
	calls []call
	data  []byte
}

// do appends a call.
func (u *unthreaded) do(nr uintptr, args ...arg) { u.calls = append(u.calls, call{nr, args}) }

// put appends data, 8-byte aligned, and returns it as an argument.
func (u *unthreaded) put(b ...byte) arg {
	for len(u.data)%8 != 0 {
		u.data = append(u.data, 0)
	}
	at := len(u.data)
	u.data = append(u.data, b...)
	return arg{uintptr(at), data}
}

// thenExecute appends the end: fd is executed with the program's own arguments and
// environment.
func (u *unthreaded) thenExecute(fd int) {
	u.do(unix.SYS_EXECVEAT, num(uintptr(fd)), u.put(0), arg{kind: arguments}, arg{kind: environment}, num(unix.AT_EMPTY_PATH))
	u.do(unix.SYS_EXIT_GROUP, num(exitFailure))
}

// image is the program as an ELF file of one segment: headers, code, data.
func (u *unthreaded) image() []byte {
	const header, program = 64, 56
	const codeAt = header + 2*program
	size := 0
	for _, c := range u.calls {
		size += len(encode(c, 0))
	}
	dataAt := (codeAt + size + 7) &^ 7
	var code []byte
	for _, c := range u.calls {
		code = append(code, encode(c, uint64(base+dataAt))...)
	}
	le := binary.LittleEndian
	b := append([]byte{0x7f, 'E', 'L', 'F', 2 /* 64 bits */, 1 /* little-endian */, 1}, make([]byte, 9)...)
	b = le.AppendUint16(b, 2) // ET_EXEC
	b = le.AppendUint16(b, elfMachine)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, base+codeAt) // entry point
	b = le.AppendUint64(b, header)      // program headers follow
	b = le.AppendUint64(b, 0)           // no sections
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{header, program, 2, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	segment := func(kind, flags uint32, address, size uint64) {
		b = le.AppendUint32(b, kind)
		b = le.AppendUint32(b, flags)
		for _, v := range []uint64{0, address, address, size, size, 4096} {
			b = le.AppendUint64(b, v)
		}
	}
	const load, gnuStack, x, w, r = 1, 0x6474e551, 1, 2, 4
	segment(load, r|x, base, uint64(dataAt+len(u.data)))
	segment(gnuStack, r|w, 0, 0)
	b = append(b, code...)
	b = append(b, make([]byte, dataAt-len(b))...)
	return append(b, u.data...)
}

// execute makes this process the program; it returns only if that fails.
func (u *unthreaded) execute(argv, env []string) error {
	fd, err := unix.MemfdCreate("slirp4netns", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "unthreaded")
	defer f.Close()
	if _, err := f.Write(u.image()); err != nil {
		return fmt.Errorf("write a program to memory: %w", err)
	}
	// A file that is open for writing is not executed; its link in /proc opens
	// another.
	ro, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a file in memory: %w", err)
	}
	defer unix.Close(ro)
	f.Close()
	return fmt.Errorf("execute a file in memory: %w", syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", ro), argv, env))
}
