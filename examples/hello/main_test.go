package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHelloSaysWhoCalled(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(hello))
	defer s.Close()
	var caller string
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller = r.RemoteAddr
		hello(w, r)
	})
	resp, err := http.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(body), "hello, "+caller+":") {
		t.Errorf("answered %q to %s", body, caller)
	}
	if server := strings.TrimPrefix(s.URL, "http://"); !strings.HasSuffix(string(body), " at "+server+"\n") {
		t.Errorf("answer %q does not end with the server's address %s", body, server)
	}
}
