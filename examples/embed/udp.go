package main

import (
	"fmt"
	"io"
	"net"
	"time"

	"sbxnet/netstack/socket"
)

// echo sends one datagram to a server that sends back what it gets.
func echo(out io.Writer, server, client *socket.Net) error {
	pc, err := server.ListenPacket("udp", "192.0.2.1:7")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer pc.Close()
	go echoServer(pc)

	c, err := client.Dial("udp", "192.0.2.1:7")
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second)) // a datagram may get lost
	if _, err := c.Write([]byte("anybody there?")); err != nil {
		return err
	}
	answer := make([]byte, mtu)
	n, err := c.Read(answer)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "udp %s echoes: %s\n", c.RemoteAddr(), answer[:n])
	return nil
}

// echoServer ends when pc is closed.
func echoServer(pc net.PacketConn) {
	b := make([]byte, mtu)
	for {
		n, from, err := pc.ReadFrom(b)
		if err != nil {
			return
		}
		pc.WriteTo(b[:n], from)
	}
}
