// Command isolation shows what a sandbox keeps apart, as a checklist. Each line
// is tried with the real sbxnet program, and what must fail inside is shown to
// work outside, so that a line which can only say yes is not among them.
//
//	go run ./examples/isolation
//
// It builds sbxnet unless -sbxnet names one. Nothing leaves the machine.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

func main() {
	if role := os.Getenv(roleEnv); role != "" {
		os.Exit(play(role, os.Args[1:]))
	}
	path := flag.String("sbxnet", "", "the sbxnet `PROGRAM` to try; built from this module if empty")
	flag.Parse()
	os.Exit(run(*path, os.Stdout))
}

// run goes through the checklist and returns the exit status: 1 if a line of it
// is not as it should be.
func run(sbxnet string, out io.Writer) int {
	if sbxnet == "" {
		built, clean, err := build()
		if err != nil {
			fmt.Fprintln(os.Stderr, "isolation:", err)
			return 1
		}
		defer clean()
		sbxnet = built
	}
	list := &checklist{sbxnet: sbxnet, out: out}
	list.noNetwork()
	list.hostLoopback()
	list.twoSandboxes()
	list.publishedPort()
	if list.failed > 0 {
		fmt.Fprintf(out, "\n%d of %d are not as they should be.\n", list.failed, list.made)
		return 1
	}
	fmt.Fprintf(out, "\nAll %d are as they should be.\n", list.made)
	return 0
}

// build compiles sbxnet into a directory that clean removes.
func build() (path string, clean func(), err error) {
	dir, err := os.MkdirTemp("", "isolation")
	if err != nil {
		return "", nil, err
	}
	clean = func() { os.RemoveAll(dir) }
	path = filepath.Join(dir, "sbxnet")
	cmd := exec.Command("go", "build", "-o", path, "sbxnet/cmd/sbxnet")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		clean()
		return "", nil, fmt.Errorf("build sbxnet: %w; name one with -sbxnet", err)
	}
	return path, clean, nil
}
