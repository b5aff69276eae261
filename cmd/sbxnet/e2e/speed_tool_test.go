package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// speedArg makes the test binary the program that runs in the sandboxes of the
// speed tests, before it is a test binary.
const speedArg = "e2e-speed"

func init() {
	if len(os.Args) < 2 || os.Args[1] != speedArg {
		return
	}
	if err := speedTool(os.Args[2:]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Ports of the speed tests: of the servers outside, and of the one in the
// sandbox, which is published under its own number.
const (
	outsidePort   = "7000"
	publishedPort = "7001"
)

// speedTool carries a load out of the sandbox, SEED COUNT AT PAUSING SLOWEST
// HOST..., to the hosts in turn, while it serves what comes in. It ends when its
// own load is done and standard input has ended: then so is the other one.
func speedTool(args []string) error {
	l := &load{seed: unsigned(args[0]), count: int(unsigned(args[1])), at: int(unsigned(args[2])), pausing: args[3] == "true"}
	l.slowest, _ = time.ParseDuration(args[4])
	hosts := args[5:]
	l.dial = func(i int) (*net.TCPConn, error) {
		return dialTCP(net.JoinHostPort(hosts[i%len(hosts)], outsidePort))
	}
	in, err := net.Listen("tcp", ":"+publishedPort)
	if err != nil {
		return err
	}
	stop := serveTransfers(in)
	fmt.Println("serving")
	errs := []error{l.run()}
	for _, host := range hosts {
		errs = append(errs, datagrams(net.JoinHostPort(host, outsidePort), l.seed))
	}
	fmt.Println("carried", summary(l.measured))
	io.Copy(io.Discard, os.Stdin)
	return errors.Join(append(errs, stop())...)
}

func unsigned(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func dialTCP(addr string) (*net.TCPConn, error) {
	c, err := net.DialTimeout("tcp", addr, transferPatience)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

func summary(took []time.Duration) string {
	if len(took) == 0 {
		return "nothing"
	}
	s := slices.Sorted(slices.Values(took))
	return fmt.Sprintf("%d transfers, beyond their pauses: median %v, slowest %v", len(s),
		s[len(s)/2].Round(time.Millisecond), s[len(s)-1].Round(time.Millisecond))
}

// A datagram's head says which it is of which load, so that none is taken for
// another.
const datagramHead = 16

// datagramOf is one of a load: the head, and content that it determines.
func datagramOf(seed uint64, i, size int) []byte {
	b := make([]byte, datagramHead+size)
	binary.BigEndian.PutUint64(b, seed)
	binary.BigEndian.PutUint64(b[8:], uint64(i))
	var key [32]byte
	copy(key[:], b[:datagramHead])
	rand.NewChaCha8(key).Read(b[datagramHead:])
	return b
}

// datagrams sends bursts, of one size each so that they can be joined and cut
// again, and wants each datagram's echo, byte for byte. UDP may lose some under
// load: what does not come back is sent again, a few times.
func datagrams(addr string, seed uint64) error {
	const bursts, burst, tries = 6, 16, 5
	c, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	r := rand.New(rand.NewPCG(seed, 9))
	in := make([]byte, 4096)
	for n := range bursts {
		size := int(spanning(r, 1400))
		missing := map[int][]byte{}
		for i := range burst {
			last := size
			if i == burst-1 {
				last = r.IntN(size + 1) // a shorter one ends a group
			}
			missing[n*burst+i] = datagramOf(seed, n*burst+i, last)
		}
		for try := 0; len(missing) > 0; try++ {
			if try == tries {
				return fmt.Errorf("UDP %s, seed %d, %d bytes: %d of %d datagrams did not come back, sent %d times", addr, seed, size, len(missing), burst, tries)
			}
			for _, b := range missing {
				if _, err := c.Write(b); err != nil {
					return fmt.Errorf("UDP %s: %w", addr, err)
				}
			}
			c.SetReadDeadline(time.Now().Add(time.Second))
			for len(missing) > 0 {
				m, err := c.Read(in)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
				if err != nil {
					return fmt.Errorf("UDP %s: %w", addr, err)
				}
				i, err := recognise(in[:m], seed, missing)
				if err != nil {
					return fmt.Errorf("UDP %s: %w", addr, err)
				}
				delete(missing, i)
			}
		}
	}
	return nil
}

// recognise returns which of the datagrams b is, if it is all of it. One of an
// earlier burst, sent twice because its echo was late, is no news.
func recognise(b []byte, seed uint64, sent map[int][]byte) (int, error) {
	if len(b) < datagramHead || binary.BigEndian.Uint64(b) != seed {
		return 0, fmt.Errorf("a datagram of %d bytes that is not of seed %d: % x", len(b), seed, b[:min(len(b), 32)])
	}
	i := int(binary.BigEndian.Uint64(b[8:]))
	want, ok := sent[i]
	if !ok {
		want = datagramOf(seed, i, len(b)-datagramHead)
	}
	if !bytes.Equal(b, want) {
		return 0, fmt.Errorf("datagram %d of seed %d came back as %d bytes, sent were %d; the first that differs is %d",
			i, seed, len(b), len(want), firstDifference(b, want))
	}
	return i, nil
}

// echoDatagrams sends back what comes, until pc is closed.
func echoDatagrams(pc net.PacketConn) {
	b := make([]byte, 65536)
	for {
		n, from, err := pc.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			pc.WriteTo(b[:n], from)
		}
	}
}

func contains(err error, text string) bool { return strings.Contains(err.Error(), text) }

func TestSpeedDatagramsFindWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		meddle func([]byte) []byte
		want   string
	}{
		"nothing": {func(b []byte) []byte { return b }, ""},
		"a byte": {func(b []byte) []byte {
			b[len(b)-1] ^= 1
			return b
		}, "came back as"},
		"the length":  {func(b []byte) []byte { return append(b, 0) }, "came back as"},
		"another one": {func(b []byte) []byte { return datagramOf(8, 0, 10) }, "not of seed 7"},
	} {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		go func() {
			b := make([]byte, 4096)
			for {
				n, from, err := pc.ReadFrom(b)
				if err != nil {
					return
				}
				pc.WriteTo(c.meddle(b[:n]), from)
			}
		}()
		err = datagrams(pc.LocalAddr().String(), 7)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !contains(err, c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
