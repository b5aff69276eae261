package kerneltest

import (
	"net"
	"testing"
	"time"
)

// chatter has datagrams cross the link both ways, about one a millisecond and
// queue, until the test ends. A burst of losses lasts for a number of packets, so a
// connection that is alone on a link, or on its queue, meets the same burst again
// with every retransmission, however long it backs off: one in ten takes a minute to
// get out of one of four. On a link that others use, bursts pass with time.
func (w *world) chatter(t *testing.T) {
	t.Helper()
	flows := len(w.link.Queues())
	if flows > 1 {
		flows *= chatterFlows
	}
	far, err := net.ListenPacket("udp4", net.JoinHostPort(outside4, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	every := time.Duration(flows/len(w.link.Queues())) * time.Millisecond
	for range flows {
		var near net.Conn
		w.sandbox.Do(func() { near, err = net.Dial("udp4", far.LocalAddr().String()) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { near.Close() })
		go func() {
			for {
				if _, err := near.Write([]byte{1}); err != nil {
					return
				}
				time.Sleep(every)
			}
		}()
	}
	go echo(far)
}

// chatterFlows is how many flows there are for each of several queues. The kernel's
// hash of a flow chooses its queue: one of four has none of 32 once in 2500 times.
const chatterFlows = 8

// echo answers each datagram with itself.
func echo(c net.PacketConn) {
	b := make([]byte, 1)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		if _, err := c.WriteTo(b[:n], from); err != nil {
			return
		}
	}
}
