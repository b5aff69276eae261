package socket_test

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"sbxnet/netstack/socket"
	"sbxnet/tapdev"
)

// Two stacks on a link in memory, a web server on one and a client on the other.
func ExampleStart() {
	left, right := tapdev.NewChannel(1500)
	a, err := socket.Start(context.Background(), config(0), left)
	if err != nil {
		panic(err)
	}
	defer a.Close()
	b, err := socket.Start(context.Background(), config(1), right)
	if err != nil {
		panic(err)
	}
	defer b.Close()

	l, err := b.Listen("tcp", ":80")
	if err != nil {
		panic(err)
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") }))

	client := http.Client{Transport: &http.Transport{DialContext: a.DialContext}}
	resp, err := client.Get("http://10.0.2.100/")
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Println(string(body), err)
	// Output: hello <nil>
}
