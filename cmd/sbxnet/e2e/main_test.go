package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"sbxnet/tapdev/linktest"
)

// sbxnet and hello are the programs under test, built once a run; a world
// inherits them through the environment. self is this test binary.
var (
	self   = selfPath()
	sbxnet = os.Getenv("SBXNET_E2E_BINARY")
	hello  = os.Getenv("SBXNET_E2E_HELLO")
)

// selfPath is this test binary's own: what runs in a sandbox finds another
// program behind /proc/self/exe.
func selfPath() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

// The main goroutine keeps the main thread to itself: a goroutine that enters
// another network namespace must run on a thread that can end, and the main
// thread can't. What /proc/self says is the main thread's view.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if len(os.Args) > 1 && os.Args[1] == toolArg {
		return tool(os.Args[2:])
	}
	if sbxnet == "" {
		dir, err := os.MkdirTemp("", "sbxnet-e2e-bin")
		if err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
		sbxnet, hello = filepath.Join(dir, "sbxnet"), filepath.Join(dir, "hello")
		if !build(sbxnet, "sbxnet/cmd/sbxnet", linktest.Chosen().BuildFlags()...) || !build(hello, "sbxnet/examples/hello") {
			return 1
		}
		os.Setenv("SBXNET_E2E_BINARY", sbxnet)
		os.Setenv("SBXNET_E2E_HELLO", hello)
	}
	unignore()
	return m.Run()
}

// unignore catches the signals that whoever started the tests ignores, such as
// nohup or a shell for what it puts in the background. What a test starts would
// ignore them too, as sbxnet leaves it to its command.
func unignore() {
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}

// lookAtSources makes the sources of the programs under test, and the choice of
// links that they are built with, part of what the go command caches this test's
// result by: it knows what a test opens or looks at within the module, once the
// tests run, and not what a compiler does that the test starts.
var lookAtSources = sync.OnceFunc(func() {
	linktest.Chosen()
	filepath.WalkDir("../../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && (d.IsDir() || filepath.Ext(path) == ".go" || d.Name() == "go.sum") {
			os.Stat(path)
		}
		return nil
	})
})

// build compiles a program of this module, with the race detector if the tests
// run with it: a data race in sbxnet itself then fails the test that met it.
func build(out, pkg string, flags ...string) bool {
	args := append([]string{"build", "-o", out}, flags...)
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, pkg)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintf(os.Stderr, "e2e: build %s: %v\n", pkg, err)
		return false
	}
	return true
}
