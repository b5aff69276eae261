package main

import (
	"os/exec"
	"strings"
	"testing"
)

// Every sandbox has what this program imports in memory twice: in the program
// outside and in the sandbox's first process. What is not worth it here:
// text/template, which urfave/cli and html/template need, calls methods by name,
// so that no method of any type is left out of the program, and gopacket fills
// tables of 5 MB when it starts.
func TestProgramLeavesOutWhatEverySandboxWouldCarry(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatalf("list the packages of this program: %v", err)
	}
	for dep := range strings.Lines(string(out)) {
		for _, heavy := range []string{"text/template", "html/template", "github.com/gopacket/", "github.com/google/gopacket", "github.com/urfave/", "gvisor.dev/"} {
			if dep = strings.TrimSpace(dep); strings.HasPrefix(dep, heavy) {
				t.Errorf("%s is in the program; `go mod why %[1]s` says for whom", dep)
			}
		}
	}
}
