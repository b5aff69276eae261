package tapdev

import (
	"bytes"
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/netstack/checksum"
	"sbxnet/netstack/frame"
)

func ethernet(n int) frame.Frame {
	h := make([]byte, 14, 14+n)
	h[12] = 0x88
	f := frame.Frame{Header: h}
	f.Payload[0] = make([]byte, n)
	for i := range f.Payload[0] {
		f.Payload[0][i] = byte(i)
	}
	return f
}

func TestChannelCarriesFramesInOrderWithTheirOffload(t *testing.T) {
	a, b := NewChannel(1500)
	defer a.Close()
	f := probeTCPv4()
	var want [][]byte
	for i := range 5 {
		f.Header[0] = byte(i)
		want = append(want, f.AppendTo(nil))
		if err := a.Write([]frame.Frame{f}); err != nil {
			t.Fatal(err)
		}
	}
	in := make([]Received, 3)
	for i := 0; i < 5; {
		n, err := b.Read(in)
		if err != nil || n == 0 {
			t.Fatalf("after %d frames: %d, %v", i, n, err)
		}
		for _, r := range in[:n] {
			if !bytes.Equal(r.Data, want[i]) || r.Offload != f.Offload {
				t.Errorf("frame %d: %x %+v", i, r.Data, r.Offload)
			}
			i++
		}
	}
	if n, err := b.Read(in); n != 0 || err != nil {
		t.Errorf("empty channel: %d, %v", n, err)
	}
	if s, r := a.Stats(), b.Stats(); s.TxFrames != 5 || r.RxFrames != 5 || s.TxBytes != r.RxBytes || s.TxDropped != 0 {
		t.Errorf("sent %+v, received %+v", s, r)
	}
}

func TestChannelFrameStaysGoodUntilNextRead(t *testing.T) {
	a, b := NewChannel(1500, WithCapacity(2))
	defer a.Close()
	write := func(mark byte) {
		f := ethernet(100)
		f.Header[0] = mark
		if err := a.Write([]frame.Frame{f}); err != nil {
			t.Fatal(err)
		}
	}
	in := make([]Received, 2)
	for round := range byte(20) {
		write(2 * round)
		write(2*round + 1)
		if n, err := b.Read(in); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		write(200)
		write(201) // as many as fit, while two are lent out
		for i, r := range in {
			if r.Data[0] != 2*round+byte(i) {
				t.Fatalf("round %d: frame %d became %d before the next Read", round, i, r.Data[0])
			}
		}
		if n, err := b.Read(in); n != 2 || err != nil || in[1].Data[0] != 201 {
			t.Fatal(n, err)
		}
	}
}

func TestChannelDropsAndCountsWhatDoesNotFit(t *testing.T) {
	a, b := NewChannel(1500, WithCapacity(4), WithoutSegmentation())
	defer b.Close()
	out := []frame.Frame{ethernet(1501), ethernet(1500), ethernet(1), ethernet(1), ethernet(1), ethernet(1)}
	if err := a.Write(out); err != nil {
		t.Fatal(err)
	}
	if s := a.Stats(); s.TxFrames != 4 || s.TxDropped != 2 {
		t.Errorf("%+v, want 4 sent and 2 dropped", s)
	}
	if c := a.Capabilities(); c.TSO4 || c.TSO6 || c.USO || c.MaxFrame != 1514 {
		t.Errorf("%+v", c)
	}
}

func TestChannelWithChecksumsDeliversWireFrames(t *testing.T) {
	a, b := NewChannel(1500, WithChecksums())
	defer a.Close()
	if err := a.Write([]frame.Frame{probeTCPv6()}); err != nil {
		t.Fatal(err)
	}
	in := make([]Received, 8)
	n, err := b.Read(in)
	if n != probePayload/probeSize || err != nil {
		t.Fatalf("%d frames, %v", n, err)
	}
	for _, r := range in[:n] {
		sum := checksum.Sum(0).Add(r.Data[14+8 : 14+40]).AddUint16(6).AddUint16(20 + probeSize).Add(r.Data[54:])
		if !sum.Valid() || r.NeedsChecksum || r.GSOType != frame.GSONone || len(r.Data) != 74+probeSize {
			t.Errorf("%x %+v", r.Data, r.Offload)
		}
	}
}

func TestChannelWakesBothKindsOfReader(t *testing.T) {
	a, b := NewChannel(1500)
	fd := b.FD()
	readable := func() bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return err == nil && n == 1
	}
	if readable() {
		t.Error("readable while empty")
	}
	go a.Write([]frame.Frame{ethernet(10), ethernet(10)})
	in := make([]Received, 1)
	for got := 0; got < 2; {
		select {
		case <-b.Ready():
		case <-time.After(5 * time.Second):
			t.Fatalf("no wake-up after %d frames", got)
		}
		if !readable() && got == 0 {
			t.Error("eventfd not readable with a frame waiting")
		}
		for {
			n, err := b.Read(in)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
			got += n
		}
	}
	if readable() {
		t.Error("readable after everything was read")
	}
	a.Close()
	if !readable() {
		t.Error("close does not wake the other end")
	}
	if _, err := b.Read(in); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	if err := b.Write([]frame.Frame{ethernet(1)}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
