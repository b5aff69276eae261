// Command whoami tells every TCP client and every sender of a UDP datagram
// which address it sees them under. "whoami ask NETWORK ADDRESS" is such a
// client. The tests put it, statically linked, into container images.
package main

import (
	"fmt"
	"log"
	"net"
	"os"
	"strings"
	"time"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == "ask" {
		ask(os.Args[2], os.Args[3])
		return
	}
	if len(os.Args) != 3 {
		log.Fatal("usage: whoami [HOST:]TCPPORT [HOST:]UDPPORT | whoami ask NETWORK ADDRESS")
	}
	udp, err := net.ListenPacket("udp", address(os.Args[2]))
	if err != nil {
		log.Fatal(err)
	}
	tcp, err := net.Listen("tcp", address(os.Args[1]))
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

// address is that of a server; without a host, all of them.
func address(s string) string {
	if strings.Contains(s, ":") {
		return s
	}
	return ":" + s
}

// ask says "datagram" and prints the answer.
func ask(network, address string) {
	c, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprintln(c, "datagram")
	b := make([]byte, 2048)
	n, err := c.Read(b)
	os.Stdout.Write(b[:n])
	if err != nil {
		log.Fatal(err)
	}
}
