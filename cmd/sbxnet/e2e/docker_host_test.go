package e2e

import (
	"archive/tar"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A docker is a rootless dockerd of the test's user, in a sandbox of ours, with
// an image in which whoami and busybox are.
type docker struct {
	*rootless
	daemon *process
}

// dockerScript is what Debian installs, and what its service runs: it enters
// rootlesskit and then runs dockerd.
const dockerScript = "/usr/share/docker.io/contrib/dockerd-rootless.sh"

// dockerHosts are the ways to start dockerd that docs/docker.md tells of. The
// first is the script as it is, with our program as its rootlesskit.
var dockerHosts = map[string][]string{
	"rootlesskit": {dockerScript},
	"sbxnet run": {"env", "_DOCKERD_ROOTLESS_CHILD=1", "sbxnet", "run", "--mtu", "65520", "--copy-up", "/etc", "--copy-up", "/run",
		"--propagation", "rslave", "--", dockerScript},
}

func newDocker(t *testing.T, host string) *docker {
	t.Helper()
	need(t, "dockerd")
	return newDockerWith(t, host, func(*docker) {})
}

// newDockerWith starts it when prepare has had its way.
func newDockerWith(t *testing.T, host string, prepare func(*docker)) *docker {
	t.Helper()
	need(t, "docker", "busybox", "iptables", "runc")
	d := &docker{rootless: newRootless(t)}
	d.must(os.Symlink(sbxnet, d.ours+"/sbxnet"))
	prepare(d)
	d.begin(d.command(dockerHosts[host][0], append(dockerHosts[host][1:], dockerFlags...)...))
	d.docker("import", d.makeImage(), image)
	return d
}

// No storage driver but this works everywhere.
var dockerFlags = []string{"--storage-driver=vfs"}

// begin starts the daemon and waits until it answers.
func (d *docker) begin(cmd *exec.Cmd) {
	d.t.Helper()
	d.daemon = startCommand(d.t, cmd)
	d.daemon.until("dockerd", patience, func() bool { _, err := d.tryDocker("version"); return err == nil })
}

// endDaemon ends the daemon, and with it all containers.
func (d *docker) endDaemon() {
	d.t.Helper()
	d.daemon.cmd.Process.Signal(syscall.SIGTERM)
	d.daemon.wait(patience)
}

// kill kills our program.
func (d *docker) kill() {
	d.t.Helper()
	d.daemon.cmd.Process.Kill()
	d.daemon.wait(patience)
}

// gone waits until no process of the test's is left.
func (d *docker) gone() {
	d.t.Helper()
	for deadline := time.Now().Add(patience); len(sceneOf(d.t).processes()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Fatalf("still there: %v", sceneOf(d.t).processes())
		}
	}
}

func (d *docker) tryDocker(args ...string) (string, error) {
	d.t.Helper()
	out, err := d.try("docker", append([]string{"--host=unix://" + d.runtime() + "/docker.sock"}, args...)...)
	return strings.TrimSpace(out), err
}

// docker runs the client, which must succeed.
func (d *docker) docker(args ...string) string {
	d.t.Helper()
	out, err := d.tryDocker(args...)
	d.must(err)
	return out
}

// serve starts a container with whoami as its server and returns its name.
func (d *docker) serve(flags ...string) string {
	d.t.Helper()
	id := d.docker(d.serving(flags)...)
	d.listening(id, 1)
	return id
}

// listening waits until the server of a container listens that was started n
// times. Before, clients may be led to another place that it might be at, and not
// be seen as themselves.
func (d *docker) listening(id string, n int) {
	d.t.Helper()
	d.daemon.until("server in a container", patience, func() bool {
		return strings.Count(d.docker("logs", id), "listening") >= n
	})
}

func (d *docker) serving(flags []string) []string {
	args := append([]string{"run", "-d", "--rm", "-e", sceneOf(d.t).marker()}, flags...)
	return append(args, image, "/bin/whoami", "80", "53")
}

// sh runs a script in a container of its own.
func (d *docker) sh(script string) string {
	d.t.Helper()
	return d.docker("run", "--rm", "-e", sceneOf(d.t).marker(), image, "/bin/sh", "-c", script)
}

// makeImage is the archive of a root directory with busybox and whoami in it.
func (d *docker) makeImage() string {
	d.t.Helper()
	path := d.dir + "/image.tar"
	f, err := os.Create(path)
	d.must(err)
	defer f.Close()
	d.own(path)
	w := tar.NewWriter(f)
	for _, dir := range []string{"bin", "dev", "etc", "proc", "sys", "tmp"} {
		d.must(w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}))
	}
	busybox, err := exec.LookPath("busybox")
	d.must(err)
	for name, from := range map[string]string{"busybox": busybox, "whoami": d.theirs + "/whoami"} {
		content, err := os.ReadFile(from)
		d.must(err)
		d.must(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "bin/" + name, Mode: 0o755, Size: int64(len(content))}))
		_, err = w.Write(content)
		d.must(err)
	}
	for _, a := range applets {
		d.must(w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + a, Linkname: "busybox"}))
	}
	d.must(w.Close())
	return path
}

// on is an address and a port of the host.
func on(host string, port int) string { return net.JoinHostPort(host, fmt.Sprint(port)) }
