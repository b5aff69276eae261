package userns

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Who is not to enter a user namespace can attach if he need not.
func TestAttachThatIsToEnterNoUserNamespace(t *testing.T) {
	ns := makeNamespace(t, "", rootInside...)
	cfg := attachTo(ns)
	cfg.NetNSOnly = true
	if capableOutside() {
		attached(t, cfg)
	} else {
		a, err := Attach(cfg)
		if err == nil {
			a.Close()
		}
		if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "it takes to enter the user namespace that owns it") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v", err)
		}
	}
	cfg.UserNS = "/proc/self/ns/user"
	if a, err := Attach(cfg); err == nil || !strings.Contains(err.Error(), "name one of them") {
		t.Errorf("with a user namespace: %v, %v", a, err)
	}
}
