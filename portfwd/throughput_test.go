package portfwd

import (
	"io"
	"net"
	"testing"
	"time"

	"sbxnet/tapdev"
)

// BenchmarkRelay moves bulk data one way through a sandbox, between ends that
// do nothing with it.
func BenchmarkRelay(b *testing.B) {
	for _, kind := range []tapdev.Kind{tapdev.TAP, tapdev.Packet} {
		for _, way := range []string{"up", "down"} {
			b.Run(string(kind)+"/"+way, func(b *testing.B) {
				benchmarkRelay(b, kind, way == "up")
			})
		}
	}
}

func benchmarkRelay(b *testing.B, kind tapdev.Kind, up bool) {
	w := newWorld(b, linked(kind))
	sandbox, outside := w.connect(outside4)
	from, to := sandbox, outside
	if !up {
		from, to = outside, sandbox
	}
	const chunk = 128 << 10
	b.SetBytes(chunk)
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		buf := make([]byte, chunk)
		for range b.N {
			if _, err := from.Write(buf); err != nil {
				return
			}
		}
		from.(*net.TCPConn).CloseWrite()
	}()
	buf := make([]byte, chunk)
	for left := int64(b.N) * chunk; left > 0; {
		n, err := to.Read(buf)
		if err != nil {
			b.Fatalf("%d bytes short: %v", left, err)
		}
		left -= int64(n)
	}
	b.StopTimer()
	if n, err := to.Read(buf); err != io.EOF {
		b.Fatalf("read %d, %v at the end", n, err)
	}
}

// BenchmarkRoundTrip sends one byte there and back.
func BenchmarkRoundTrip(b *testing.B) {
	w := newWorld(b)
	near, far := w.connect(outside4)
	go echo(far)
	near.SetDeadline(time.Time{})
	buf := make([]byte, 1)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		near.Write(buf)
		if _, err := near.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDatagrams sends 1400-byte datagrams as fast as the sender can, and
// says how many arrive.
func BenchmarkDatagrams(b *testing.B) {
	for _, way := range []string{"up", "down"} {
		b.Run(way, func(b *testing.B) {
			w := newWorld(b)
			server := hostListenPacket(b, outside4)
			sandbox := w.mustDial("udp", server.LocalAddr().String()).(*net.UDPConn)
			buf := make([]byte, 1400)
			sandbox.Write(buf)
			_, client, err := server.ReadFromUDPAddrPort(buf)
			if err != nil {
				b.Fatal(err)
			}
			send := func() { sandbox.Write(buf) }
			to := server
			if way == "down" {
				send = func() { server.WriteToUDPAddrPort(buf, client) }
				to = sandbox
			}
			to.SetReadBuffer(4 << 20)
			b.SetBytes(1400)
			b.ReportAllocs()
			b.ResetTimer()
			received := make(chan int)
			go func() {
				n := 0
				got := make([]byte, 2000)
				for {
					to.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
					if _, _, err := to.ReadFromUDPAddrPort(got); err != nil {
						received <- n
						return
					}
					n++
				}
			}()
			for range b.N {
				send()
			}
			elapsed := b.Elapsed()
			b.StopTimer()
			b.ReportMetric(float64(<-received)/elapsed.Seconds(), "received/s")
		})
	}
}
