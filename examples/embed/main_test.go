package main

import (
	"regexp"
	"strings"
	"testing"
)

func TestTwoStacksTalk(t *testing.T) {
	var out strings.Builder
	if err := run(&out); err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`^http://192\.0\.2\.1/ says: hello, 192\.0\.2\.2:\d+
http://\[2001:db8::1\]/ says: hello, \[2001:db8::2\]:\d+
udp 192\.0\.2\.1:7 echoes: anybody there\?
[1-9]\d* frames crossed the link, and the operating system saw none\.
1048576 bytes arrived intact over a link that lost [1-9]\d* frames: [1-9]\d* were sent again\.
$`)
	if !want.MatchString(out.String()) {
		t.Errorf("printed\n%s", out.String())
	}
}
