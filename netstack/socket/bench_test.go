package socket_test

import (
	"io"
	"testing"

	"sbxnet/netstack/socket"
)

// BenchmarkConn is one direction of one connection over a link in memory.
func BenchmarkConn(b *testing.B) {
	x, y := pair(b)
	client, server := connect(b, x, y)
	chunk := make([]byte, 64<<10)
	done := make(chan struct{})
	go func() { defer close(done); io.Copy(io.Discard, server) }()
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	client.CloseWrite()
	<-done
}

// BenchmarkRoundTrip is one byte there and back.
func BenchmarkRoundTrip(b *testing.B) {
	x, y := pair(b)
	client, server := connect(b, x, y)
	go echo(server)
	p := make([]byte, 1)
	for b.Loop() {
		if _, err := client.Write(p); err != nil {
			b.Fatal(err)
		}
		if _, err := client.Read(p); err != nil {
			b.Fatal(err)
		}
	}
}

func echo(c *socket.Conn) {
	io.Copy(c, c)
	c.CloseWrite()
}
