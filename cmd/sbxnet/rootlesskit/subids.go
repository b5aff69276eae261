package rootlesskit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rootless-containers/rootlesskit/v3/pkg/parent/idtools"
)

// The values of --subid-source.
const (
	subIDsAuto    = "auto"    // dynamic where that finds some, else static
	subIDsStatic  = "static"  // /etc/subuid and /etc/subgid
	subIDsDynamic = "dynamic" // getsubids(1): what nsswitch.conf says of "subid"
)

// Bounds of getsubids, which may ask a server.
const (
	getsubidsTime = 20 * time.Second
	mostSubIDs    = 1 << 20 // bytes of what it says
)

// staticSubIDs are the user's ranges in /etc/subuid and /etc/subgid.
func staticSubIDs() (uids, gids []idtools.SubIDRange, err error) {
	return idtools.GetSubIDRanges(os.Geteuid(), userName())
}

// autoSubIDs are the dynamic ones, or else the static ones.
func autoSubIDs() (uids, gids []idtools.SubIDRange, err error) {
	if uids, gids, err = dynamicSubIDs(); err == nil && len(uids) > 0 && len(gids) > 0 {
		return uids, gids, nil
	}
	return staticSubIDs()
}

// requiredSubIDs are the dynamic ones; without them nothing starts.
func requiredSubIDs() (uids, gids []idtools.SubIDRange, err error) {
	if uids, gids, err = dynamicSubIDs(); err != nil {
		err = fmt.Errorf("failed to setup UID/GID map: failed to compute uid/gid map: %w", err)
	}
	return uids, gids, err
}

func userName() string {
	u, err := user.LookupId(strconv.Itoa(os.Geteuid()))
	if err != nil {
		return ""
	}
	return u.Username
}

// dynamicSubIDs are what getsubids says of the user, who may be known by name or
// by number. GETSUBIDS in the environment is another name for the program.
func dynamicSubIDs() (uids, gids []idtools.SubIDRange, err error) {
	name := os.Getenv("GETSUBIDS")
	if name == "" {
		name = "getsubids"
	}
	program, err := exec.LookPath(name)
	if err != nil {
		return nil, nil, fmt.Errorf("subid-source:dynamic: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), getsubidsTime)
	defer cancel()
	if uids, err = askSubIDs(ctx, "subuids", program); err == nil {
		gids, err = askSubIDs(ctx, "subgids", program, "-g")
	}
	return uids, gids, err
}

// askSubIDs asks for the ranges of one kind.
func askSubIDs(ctx context.Context, kind string, command ...string) ([]idtools.SubIDRange, error) {
	var ranges []idtools.SubIDRange
	var failed []error
	uid := strconv.Itoa(os.Geteuid())
	for _, owner := range []string{userName(), uid} {
		found, err := runGetsubids(ctx, append(slices.Clip(command), owner))
		if err != nil {
			failed = append(failed, err)
		}
		for _, r := range found {
			if !slices.Contains(ranges, r) {
				ranges = append(ranges, r)
			}
		}
	}
	if len(failed) == 2 {
		return nil, fmt.Errorf("subid-source:dynamic: failed to get %s by the username %q: %w; also failed to get %s by the UID %s: %w",
			kind, userName(), failed[0], kind, uid, failed[1])
	}
	return ranges, nil
}

func runGetsubids(ctx context.Context, command []string) ([]idtools.SubIDRange, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &bounded{&stdout, mostSubIDs}, &bounded{&stderr, mostSubIDs}
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("failed to exec %v: %w (stdout=%q, stderr=%q)", command, err, stdout.String(), stderr.String())
	}
	return parseSubIDs(stdout.String())
}

// bounded refuses what is beyond its room.
type bounded struct {
	to   io.Writer
	room int
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.room {
		return 0, errors.New("more was said than ranges can take")
	}
	b.room -= len(p)
	return b.to.Write(p)
}

// parseSubIDs reads lines like "0: alice 100000 65536".
func parseSubIDs(text string) ([]idtools.SubIDRange, error) {
	var ranges []idtools.SubIDRange
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		_, rest, found := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if !found || len(f) < 3 {
			return nil, fmt.Errorf("line %d: unparsable line %q", number, line)
		}
		start, err := strconv.Atoi(f[1])
		length, errLength := strconv.Atoi(f[2])
		if err = errors.Join(err, errLength); err != nil {
			return nil, fmt.Errorf("line %d: unparsable line %q: %w", number, line, err)
		}
		ranges = append(ranges, idtools.SubIDRange{Start: start, Length: length})
	}
	return ranges, nil
}
