package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

const compatHelp = `sbxnet compat has container engines use sbxnet in the place of other tools.

  sbxnet compat install DIR    make links to sbxnet: slirp4netns, pasta, pesto, rootlesskit
                               and rootlesskit-docker-proxy
  sbxnet compat status [DIR]   which engine picks up what, and what to configure
  sbxnet compat remove DIR     remove those links

Nothing but links to sbxnet is ever replaced or removed.
`

// compat is `sbxnet compat`.
func (p *program) compat(c *cli.Context) error {
	args := c.Args().Slice()
	if err := noFlags(c, args); err != nil {
		return err
	}
	if len(args) == 0 {
		return usagef("compat: say what to do: install, status or remove; see sbxnet compat --help")
	}
	verb, args := args[0], args[1:]
	switch {
	case verb != "install" && verb != "status" && verb != "remove":
		return usagef("compat %s: no such command; use install, status or remove", shown(verb))
	case len(args) > 1:
		return usagef("compat %s %s: one directory is enough", verb, shown(args[1]))
	case len(args) == 0 && verb != "status":
		return usagef("compat %s: name a directory, such as ~/.local/bin", verb)
	case len(args) == 1 && args[0] == "":
		return usagef("compat %s %q: name a directory, such as ~/.local/bin", verb, "")
	}
	self, err := ownPath()
	if err != nil {
		return fmt.Errorf("compat %s: %w", verb, err)
	}
	dir := ""
	if len(args) == 1 {
		if dir, err = filepath.Abs(args[0]); err != nil {
			return fmt.Errorf("compat %s: %w", verb, err)
		}
	}
	switch verb {
	case "install":
		return p.installLinks(dir, self)
	case "remove":
		return p.removeLinks(dir, self)
	}
	return p.compatStatus(dir, self)
}

// ownPath is where this executable is, as links are to lead to it.
func ownPath() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this executable: %w", err)
	}
	// Called through one of the links, it is the target that counts.
	if real, err := filepath.EvalSymlinks(self); err == nil {
		self = real
	}
	return self, nil
}

// linkNames are the names that sbxnet stands in under.
func linkNames() []string { return slices.Sorted(maps.Keys(personalities)) }

// What stands at the place of a link.
type linkState int

const (
	linkAbsent linkState = iota
	linkOurs             // to this executable
	linkStale            // to another sbxnet, or one that is gone
	linkForeign
)

// stateOfLink looks at what stands at path. A link counts as one to sbxnet by the
// file it leads to, or by that file's name: of an older one, or one that was moved.
func stateOfLink(path, self string) (linkState, error) {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return linkAbsent, nil
	}
	if err != nil {
		return linkForeign, err
	}
	if st.Mode()&fs.ModeSymlink == 0 {
		return linkForeign, nil
	}
	target, err := os.Readlink(path)
	if err != nil {
		return linkForeign, err
	}
	switch {
	case sameFile(path, self):
		return linkOurs, nil
	case filepath.Base(target) == "sbxnet":
		return linkStale, nil
	}
	return linkForeign, nil
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// installLinks makes all links, or none where one is in the way.
func (p *program) installLinks(dir, self string) error {
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return usagef("compat install %s: no such directory; make it first", shown(dir))
	}
	for _, name := range linkNames() {
		path := filepath.Join(dir, name)
		if path == self {
			return usagef("compat install %s: sbxnet itself is called %s there; give it its own name", shown(dir), name)
		}
		if state, err := stateOfLink(path, self); err != nil {
			return fmt.Errorf("compat install: %w", err)
		} else if state == linkForeign {
			return usagef("compat install %s: %s is there and no link to sbxnet; choose another directory, or move it away", shown(dir), path)
		}
	}
	for _, name := range linkNames() {
		if err := replaceLink(filepath.Join(dir, name), self); err != nil {
			return fmt.Errorf("compat install: %w", err)
		}
	}
	return p.compatStatus(dir, self)
}

// replaceLink makes a link whose place is free or taken by an older one. There is
// no moment without one.
func replaceLink(path, self string) error {
	next := path + ".sbxnet-new"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(self, next); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		os.Remove(next)
		return err
	}
	return nil
}

// removeLinks removes what leads to sbxnet, and says what else is there.
func (p *program) removeLinks(dir, self string) error {
	for _, name := range linkNames() {
		path := filepath.Join(dir, name)
		state, err := stateOfLink(path, self)
		if err != nil {
			return fmt.Errorf("compat remove: %w", err)
		}
		switch state {
		case linkOurs, linkStale:
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("compat remove: %w", err)
			}
			fmt.Fprintln(p.stdout, "removed", path)
		case linkForeign:
			fmt.Fprintln(p.stdout, "left", path+", which is no link to sbxnet")
		}
	}
	return nil
}

// compatStatus tells which link is there, and which one PATH finds.
func (p *program) compatStatus(dir, self string) error {
	if dir != "" {
		for _, name := range linkNames() {
			path := filepath.Join(dir, name)
			state, err := stateOfLink(path, self)
			if err != nil {
				return fmt.Errorf("compat status: %w", err)
			}
			fmt.Fprintf(p.stdout, "%-8s %s%s\n", linkWords[state], path, pathNote(name, path))
		}
	} else {
		for _, name := range linkNames() {
			found, err := exec.LookPath(name)
			switch {
			case err != nil:
				fmt.Fprintf(p.stdout, "%-8s %s: not on PATH\n", linkWords[linkAbsent], name)
			case sameFile(found, self):
				fmt.Fprintf(p.stdout, "%-8s %s\n", linkWords[linkOurs], found)
				dir = filepath.Dir(found)
			default:
				fmt.Fprintf(p.stdout, "%-8s %s\n", linkWords[linkForeign], found)
			}
		}
	}
	if dir == "" {
		dir = "DIR"
	}
	p.printEngines(dir)
	return nil
}

var linkWords = map[linkState]string{linkAbsent: "missing", linkOurs: "sbxnet", linkStale: "stale", linkForeign: "other"}

// pathNote says so if a program that is looked for on PATH is another one.
func pathNote(name, path string) string {
	found, err := exec.LookPath(name)
	switch {
	case err != nil:
		return " (not on PATH)"
	case !sameFile(found, path):
		return fmt.Sprintf(" (PATH finds %s first)", found)
	}
	return ""
}

// printEngines says what each engine needs to be told. Which one there is on this
// machine comes first.
func (p *program) printEngines(dir string) {
	for _, e := range []struct{ program, text string }{
		{"podman", podmanLines}, {"dockerd", dockerLines}, {"nerdctl", nerdctlLines},
	} {
		where := "not found on PATH"
		if path, err := exec.LookPath(e.program); err == nil {
			where = path
		}
		fmt.Fprintf(p.stdout, "\n%s (%s)\n%s", e.program, where, strings.ReplaceAll(e.text, "DIR", dir))
	}
}

const podmanLines = `  Podman up to 4 uses slirp4netns, Podman 5 and later pasta (and pesto).
  ~/.config/containers/containers.conf:
    [engine]
    network_cmd_path = "DIR/slirp4netns"
    helper_binaries_dir = ["DIR", "/usr/local/libexec/podman", "/usr/libexec/podman", "/usr/lib/podman"]
    [network]
    default_rootless_network_cmd = "pasta"      # or "slirp4netns"
  once: podman run --network slirp4netns ...   or   podman run --network pasta ...
`

const dockerLines = `  Rootless Docker starts rootlesskit from its PATH, and that slirp4netns or pasta.
  systemctl --user edit docker.service:
    [Service]
    Environment=PATH=DIR:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
  systemctl --user restart docker.service
`

const nerdctlLines = `  Rootless containerd starts rootlesskit from its PATH.
  systemctl --user edit containerd.service:
    [Service]
    Environment=PATH=DIR:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
  systemctl --user restart containerd.service
`
