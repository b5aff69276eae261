// Command whoami tells every TCP client and every sender of a UDP datagram
// which address it sees them under. The tests put it, statically linked, into
// container images.
package main

import (
	"fmt"
	"log"
	"net"
	"os"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: whoami TCPPORT UDPPORT")
	}
	udp, err := net.ListenPacket("udp", ":"+os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	tcp, err := net.Listen("tcp", ":"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening")
	go func() {
		b := make([]byte, 2048)
		for {
			if _, from, err := udp.ReadFrom(b); err == nil {
				udp.WriteTo([]byte(from.String()+"\n"), from)
			}
		}
	}()
	for {
		c, err := tcp.Accept()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Fprintln(c, c.RemoteAddr())
		c.Close()
	}
}
