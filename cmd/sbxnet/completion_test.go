package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestCompletion(t *testing.T) {
	inRuntimeDir(t)
	runningSandbox(t, "web")
	runningSandbox(t, "web-2")
	for _, c := range []struct{ words, want string }{
		{"", "attach compat completion demo doctor exec inspect ls port run stats stop version"},
		{"st", "stats stop"},
		{"nosuch ", ""},
		{"port ", "add ls rm"},
		{"port add ", "web web-2"},
		{"port add web-", "web-2"},
		{"port add web 80", ""},
		{"exec w", "web web-2"},
		{"exec web ", ""},
		{"stop web w", "web web-2"},
		{"stop -", "--help --time -t"},
		{"stop -t 5 ", "web web-2"},
		{"ls --j", "--json"},
		{"run --net", "--net-raw --network"},
		{"run --network ", "host none sandbox"},
		{"run --network n", "none"},
		{"run -q --link t", "tap"},
		{"run server --net", ""},
		{"run -q -- --net", ""},
		{"compat in", "install"},
		{"completion ", "bash fish zsh"},
		{"version ", ""},
	} {
		got := typeIn(t, append([]string{"complete", "--"}, strings.Split(c.words, " ")...)...)
		if got.status != 0 || strings.Join(strings.Fields(got.stdout), " ") != c.want {
			t.Errorf("%q: %+v, want %q", c.words, got, c.want)
		}
	}
}

// bash itself, with the script, completes what the program says.
func TestCompletionInBash(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no bash")
		}
		t.Skip("no bash on this machine")
	}
	inRuntimeDir(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "sbxnet")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bash, "--norc", "-c", `source <(sbxnet completion bash)
		COMP_WORDS=(sbxnet run --network n) COMP_CWORD=3; _sbxnet; echo "${COMPREPLY[@]}"
		COMP_WORDS=(sbxnet st) COMP_CWORD=1; _sbxnet; echo "${COMPREPLY[@]}"
		COMP_WORDS=(sbxnet run -- -) COMP_CWORD=3; _sbxnet; echo "${#COMPREPLY[@]}"`)
	cmd.Env = append(os.Environ(), asProgram+"=1", "PATH="+dir+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "none\nstats stop\n0\n" {
		t.Errorf("%v, %q", err, out)
	}
}

// So do zsh and fish, where they are installed.
func TestCompletionInOtherShells(t *testing.T) {
	inRuntimeDir(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "sbxnet")); err != nil {
		t.Fatal(err)
	}
	for shell, script := range map[string]string{
		// compadd works within zsh's own completion only.
		"zsh": `compdef() { :; }; compadd() { print -l ${(P)2}; }; source <(sbxnet completion zsh)
			words=(sbxnet st); CURRENT=2; _sbxnet`,
		"fish": `sbxnet completion fish | source; complete -C "sbxnet st"`,
	} {
		path, err := exec.LookPath(shell)
		if err != nil {
			t.Logf("no %s on this machine", shell)
			continue
		}
		flag := map[string]string{"zsh": "-fc", "fish": "-c"}[shell]
		cmd := exec.Command(path, flag, script)
		cmd.Env = append(os.Environ(), asProgram+"=1", "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+dir)
		cmd.Dir = t.TempDir() // no files to complete
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != "stats\nstop\n" {
			t.Errorf("%s: %v, %q", shell, err, out)
		}
	}
}
