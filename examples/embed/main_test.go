package main

import (
	"regexp"
	"strings"
	"testing"
)

func TestTwoStacksTalkHTTP(t *testing.T) {
	var out strings.Builder
	if err := run(&out); err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`^http://192\.0\.2\.1/ says: hello, 192\.0\.2\.2:\d+
http://\[2001:db8::1\]/ says: hello, \[2001:db8::2\]:\d+
[1-9]\d* frames crossed the link, and the operating system saw none\.
$`)
	if !want.MatchString(out.String()) {
		t.Errorf("printed\n%s", out.String())
	}
}
