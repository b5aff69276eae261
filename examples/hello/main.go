// Command hello is a web server that says who called.
//
//	go run ./examples/hello -addr :8000
//	sbxnet run -p 8080:80 -- ./hello     # then: curl localhost:8080
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	addr := flag.String("addr", ":80", "address to listen on")
	flag.Parse()
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	// The port is in this line, so -addr :0 is of use too.
	log.Printf("listening on %s", l.Addr())
	log.Fatal(http.Serve(l, http.HandlerFunc(hello)))
}

// hello answers with the caller's address as this end of the connection has
// it, which in a sandbox is the address of the real client.
func hello(w http.ResponseWriter, r *http.Request) {
	host, err := os.Hostname()
	if err != nil {
		host = "a machine without a name"
	}
	local := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	fmt.Fprintf(w, "hello, %s: this is %s at %s\n", r.RemoteAddr, host, local)
	log.Printf("%s %s from %s", r.Method, r.URL.Path, r.RemoteAddr)
}
