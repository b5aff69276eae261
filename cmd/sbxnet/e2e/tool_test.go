package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// The test binary is also the program that runs inside sandboxes where no
// ordinary one does the job. Its first argument is toolArg.
const toolArg = "e2e-tool"

func tool(args []string) int {
	tools := map[string]func([]string) error{
		"exchange": func(a []string) error { return exchangeClient(a[0], a[1]) },
		"serve":    func(a []string) error { return exchangeServer(a[0]) },
		"blast":    func(a []string) error { return blast(a[0], a[1]) },
		"crowd":    func(a []string) error { return crowd(a[0], a[1]) },
		"who":      func(a []string) error { return who(a[0], a[1]) },
		"greet":    func(a []string) error { return greet(a[0], a[1]) },
		"refused":  func(a []string) error { return dialError(a[0], a[1]) },
	}
	f := tools[args[0]]
	if f == nil {
		fmt.Fprintln(os.Stderr, "no such tool:", args[0])
		return 2
	}
	if err := f(args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tool:", args, err)
		return 1
	}
	return 0
}

// stream is n bytes that only the seed determines.
func stream(seed uint64, n int64) io.Reader {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	return io.LimitReader(rand.NewChaCha8(key), n)
}

// compare reads both to the end and says where they first differ.
func compare(got, want io.Reader) error {
	g, w := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := 0; ; {
		n, err := io.ReadFull(got, g)
		m, _ := io.ReadFull(want, w)
		if i := firstDifference(g[:n], w[:m]); i >= 0 {
			return fmt.Errorf("byte %d of the stream differs: got % x, want % x (%v)", at+i, around(g[:n], i), around(w[:m], i), err)
		}
		at += n
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			if n != m {
				return fmt.Errorf("the stream ends after %d bytes, too early", at)
			}
			return nil
		default:
			return fmt.Errorf("after %d bytes: %w", at, err)
		}
	}
}

// firstDifference is the first index at which a differs from b or goes past its
// end; -1 if b begins with a.
func firstDifference(a, b []byte) int {
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			return i
		}
	}
	return -1
}

func around(b []byte, i int) []byte { return b[i:min(i+16, len(b))] }

// exchange sends seed's stream and half-closes, while it reads what the other
// end sends until that half-closes too, and compares the bytes.
func exchange(c *net.TCPConn, sendSeed, receiveSeed uint64, n int64) error {
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, stream(sendSeed, n))
		if err == nil {
			err = c.CloseWrite()
		}
		sent <- err
	}()
	if err := compare(c, stream(receiveSeed, n)); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if err := <-sent; err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

func exchangeClient(addr, n string) error {
	size, err := strconv.ParseInt(n, 10, 64)
	if err != nil {
		return err
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	return exchange(c.(*net.TCPConn), 1, 2, size)
}

// blast sends bytes, closes and ends, without waiting for anything.
func blast(addr, n string) error {
	size, err := strconv.ParseInt(n, 10, 64)
	if err != nil {
		return err
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	if _, err := io.Copy(c, stream(1, size)); err != nil {
		return err
	}
	return c.Close()
}

// exchangeServer answers exchanges of the size that its argument gives after
// the address, "ADDR,BYTES", one after another.
func exchangeServer(arg string) error {
	addr, n, _ := strings.Cut(arg, ",")
	size, err := strconv.ParseInt(n, 10, 64)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Println("serving")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		if err := exchange(c.(*net.TCPConn), 2, 1, size); err != nil {
			fmt.Println("exchange failed:", err)
			return err
		}
		fmt.Println("exchange done")
	}
}

// crowd opens n connections to addr, keeps all of them open at once, and has
// each echo its number.
func crowd(addr, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	conns := make([]net.Conn, n)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	for i := range conns {
		if conns[i], err = net.DialTimeout("tcp", addr, 20*time.Second); err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		conns[i].SetDeadline(time.Now().Add(60 * time.Second))
	}
	for i, c := range conns {
		if _, err := fmt.Fprintf(c, "connection %06d", i); err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
	}
	for i, c := range conns {
		want := fmt.Sprintf("connection %06d", i)
		b := make([]byte, len(want))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
			return fmt.Errorf("connection %d echoed %q: %v", i, b, err)
		}
	}
	fmt.Println("all", n, "echoed")
	return nil
}

// who answers each connection or datagram with the address it came from.
func who(network, addr string) error {
	if strings.HasPrefix(network, "udp") {
		pc, err := net.ListenPacket(network, addr)
		if err != nil {
			return err
		}
		fmt.Println("listening")
		b := make([]byte, 2048)
		for {
			_, from, err := pc.ReadFrom(b)
			if err != nil {
				return err
			}
			pc.WriteTo([]byte(from.String()+"\n"), from)
		}
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		fmt.Fprintln(c, c.RemoteAddr())
		c.Close()
	}
}

// dialError prints how a connection attempt fails, "connected" if it does not.
func dialError(network, addr string) error {
	c, err := net.DialTimeout(network, addr, 5*time.Second)
	if err != nil {
		fmt.Println(err)
		return nil
	}
	defer c.Close()
	if strings.HasPrefix(network, "udp") {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			fmt.Println(err)
			return nil
		}
	}
	fmt.Println("connected")
	return nil
}
