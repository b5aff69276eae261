package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// This program plays the parts inside the sandboxes itself: roleEnv says which.
const (
	roleEnv        = "ISOLATION_ROLE"
	roleTry        = "try"        // connect to the argument, say what came of it
	roleServe      = "serve"      // listen on the arguments
	roleInterfaces = "interfaces" // name the network interfaces
)

func play(role string, args []string) int {
	switch role {
	case roleTry:
		fmt.Println(try(args[0]))
	case roleInterfaces:
		fmt.Println(interfaces())
	case roleServe:
		if err := serve(args); err != nil {
			fmt.Fprintln(os.Stderr, "isolation:", err)
			return 1
		}
	default:
		fmt.Fprintln(os.Stderr, "isolation: no such role:", role)
		return 2
	}
	return 0
}

// try returns what the server at an address says, or why there is no answer.
func try(address string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		var errno syscall.Errno
		if errors.As(err, &errno) {
			return errno.Error()
		}
		return err.Error()
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	answer, err := io.ReadAll(io.LimitReader(c, 64))
	if err != nil {
		return "connected, then: " + err.Error()
	}
	return string(answer)
}

func interfaces() string {
	list, err := net.Interfaces()
	if err != nil {
		return err.Error()
	}
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	return strings.Join(names, " ")
}

// serve tells whoever connects that this is the sandbox.
func serve(addresses []string) error {
	failed := make(chan error)
	for _, a := range addresses {
		l, err := net.Listen("tcp", a)
		if err != nil {
			return err
		}
		go func() { failed <- answer(l, inSandbox) }()
	}
	fmt.Println("serving")
	return <-failed
}

func answer(l net.Listener, with string) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		io.WriteString(c, with)
		c.Close()
	}
}
