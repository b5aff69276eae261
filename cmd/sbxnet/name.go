package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

const maxName = 63

// checkName says whether --name can be taken: letters, digits, dot, dash and
// underscore, since names end up in paths and addresses.
func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return usagef("--name %s: use 1 to %d characters", shown(name), maxName)
	}
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || r != '.' && r != '-' && r != '_') {
			return usagef("--name %s: use letters, digits, dots, dashes and underscores, a letter or digit first", shown(name))
		}
	}
	return nil
}

// A nameLock keeps a sandbox's name to one running sbxnet of this user. It is
// a listening socket in the abstract namespace, which has no file to be left
// behind and which the kernel closes whatever kills the process.
type nameLock struct{ l net.Listener }

// lockName takes the name, or says which process has it. An empty name needs
// no lock.
func lockName(name string) (*nameLock, error) {
	if name == "" {
		return &nameLock{}, nil
	}
	addr := &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("@sbxnet/%d/%s", os.Getuid(), name)}
	l, err := net.ListenUnix("unix", addr)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, usagef("--name %s: taken by a running sandbox%s; choose another name or end that one", name, holder(addr))
	}
	if err != nil {
		return nil, fmt.Errorf("--name %s: take the name: %w", name, err)
	}
	return &nameLock{l}, nil
}

// Close gives the name back.
func (n *nameLock) Close() error {
	if n.l == nil {
		return nil
	}
	return n.l.Close()
}

// holder asks the kernel who listens on addr: a connection's peer credentials
// are those of the process that called listen.
func holder(addr *net.UnixAddr) string {
	c, err := net.DialUnix("unix", nil, addr)
	if err != nil {
		return ""
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return ""
	}
	var cred *unix.Ucred
	raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil || cred == nil {
		return ""
	}
	return fmt.Sprintf(" (sbxnet, pid %d)", cred.Pid)
}
