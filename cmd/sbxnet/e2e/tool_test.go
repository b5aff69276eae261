package e2e

import (
	"crypto/sha256"
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
		"crowd":    func(a []string) error { return crowd(a[0], a[1]) },
		"who":      func(a []string) error { return who(a[0], a[1]) },
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

func sumOf(r io.Reader) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, r)
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

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
	got, err := sumOf(c)
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if err := <-sent; err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if want, _ := sumOf(stream(receiveSeed, n)); got != want {
		return fmt.Errorf("received bytes differ from those sent")
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
	fmt.Println("listening")
	if strings.HasPrefix(network, "udp") {
		pc, err := net.ListenPacket(network, addr)
		if err != nil {
			return err
		}
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
		c.SetDeadline(time.Now().Add(2 * time.Second))
		c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			fmt.Println(err)
			return nil
		}
	}
	fmt.Println("connected")
	return nil
}
