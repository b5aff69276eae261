package userns

import (
	"errors"
	"os"
	"testing"

	"github.com/rootless-containers/rootlesskit/v3/pkg/parent/idtools"
)

// A caller that finds subordinate IDs itself is told in its own words why it
// found none, not what /etc/subuid lacks.
func TestSubordinateIDsMayBeTheCallersToFind(t *testing.T) {
	notFound := errors.New("nobody knows")
	cfg, err := Config{
		Command: []string{"true"}, Network: NetworkNone, UserMap: MapFull,
		SubIDs: func() (uids, gids []idtools.SubIDRange, err error) { return nil, nil, notFound },
	}.withDefaults()
	must(t, err)
	if err := cfg.explainFullMap(notFound); err != notFound {
		t.Errorf("explained as %v", err)
	}
	if os.Geteuid() == 0 {
		return // has all IDs, and asks nobody
	}
	if _, err := fullMapsOf(cfg.SubIDs); !errors.Is(err, notFound) {
		t.Errorf("%v", err)
	}
	found := []idtools.SubIDRange{{Start: 300000, Length: 5}}
	m, err := fullMapsOf(func() (uids, gids []idtools.SubIDRange, err error) { return found, found, nil })
	if err != nil || m.uid[1] != (extent{1, 300000, 5}) || m.gid[1] != (extent{1, 300000, 5}) {
		t.Errorf("%+v, %v", m, err)
	}
}
