package hostsock

import "testing"

func TestJoinedDatagramsAreAskedForFromLinux5_12On(t *testing.T) {
	for release, want := range map[string]bool{
		"5.12.0": true, "5.11.22-generic": false, "5.4.0-186-generic": false, "4.19.0": false,
		"6.1.0-18-amd64": true, "6.18.44": true, "10.0": true, "5.12-rc1": true, "": false, "unknown": false,
	} {
		if got := releaseAtLeast(release, 5, 12); got != want {
			t.Errorf("%q: %v, want %v", release, got, want)
		}
	}
}

func TestRulesForOneConnectionAreAskedForWhereTheyAre(t *testing.T) {
	for release, want := range map[string][2]bool{ // IPv4, IPv6
		"4.15.0-213-generic": {false, false}, "4.16.18": {false, false}, "4.17.0": {true, false}, "4.18.0-553.el8": {true, false},
		"6.8.0-45-generic": {true, false}, "6.9.1": {true, true}, "6.18.44": {true, true}, "": {false, false},
	} {
		if got := [2]bool{routesAnew(release, false), routesAnew(release, true)}; got != want {
			t.Errorf("%q: %v, want %v", release, got, want)
		}
	}
}
