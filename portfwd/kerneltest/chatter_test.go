package kerneltest

import (
	"net"
	"testing"
	"time"
)

// chatter has datagrams cross the link both ways, one a millisecond, until the
// test ends. A burst of losses lasts for a number of packets, so a connection
// that is alone on a link meets the same burst again with every retransmission,
// however long it backs off: one in ten takes a minute to get out of one of
// four. On a link that others use, bursts pass with time.
func (w *world) chatter(t *testing.T) {
	t.Helper()
	far, err := net.ListenPacket("udp4", net.JoinHostPort(outside4, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	var near net.Conn
	w.sandbox.Do(func() { near, err = net.Dial("udp4", far.LocalAddr().String()) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	go repeat(func() error { _, err := near.Write([]byte{1}); return err })
	go func() {
		_, client, err := far.ReadFrom(make([]byte, 1))
		if err != nil {
			return
		}
		repeat(func() error { _, err := far.WriteTo([]byte{1}, client); return err })
	}()
}

func repeat(send func() error) {
	for send() == nil {
		time.Sleep(time.Millisecond)
	}
}
