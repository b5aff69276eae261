package main

import (
	"fmt"
	"io"
	"net/http"

	"sbxnet/netstack/socket"
)

// browse is the standard library over our sockets: a net.Listener serves, and a
// transport dials.
func browse(out io.Writer, server, client *socket.Net) error {
	l, err := server.Listen("tcp", ":80")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	web := &http.Server{Handler: http.HandlerFunc(hello)}
	go web.Serve(l)
	defer web.Close()
	browser := &http.Client{Transport: &http.Transport{DialContext: client.DialContext}}
	defer browser.CloseIdleConnections()
	for _, url := range []string{"http://192.0.2.1/", "http://[2001:db8::1]/"} {
		body, err := fetch(browser, url)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s says: %s\n", url, body)
	}
	return nil
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "hello, %s", r.RemoteAddr)
}

func fetch(browser *http.Client, url string) ([]byte, error) {
	resp, err := browser.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", url, err)
	}
	return body, nil
}
