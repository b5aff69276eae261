package console

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"
)

func TestTextLogIsForPeople(t *testing.T) {
	var b bytes.Buffer
	log := NewLogger(&b, "sbxnet", "text", slog.LevelInfo)
	log.Debug("unseen")
	log.Info("moved")
	log.With("link", "tap0").WithGroup("g").Warn("slow\nlink", "mtu", 1500, slog.Group("in", "a", "b c"))
	want := "sbxnet: moved\nsbxnet: warning: slow link (link=tap0 g.mtu=1500 g.in.a=\"b c\")\n"
	if b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

func TestPacketsAreLoggedAtAnyLevel(t *testing.T) {
	var b bytes.Buffer
	NewPacketLogger(&b, "sbxnet", "text").Debug("< ARP")
	if b.String() != "sbxnet: < ARP\n" {
		t.Errorf("%q", b.String())
	}
}

func TestJSONLogIsJSON(t *testing.T) {
	var b bytes.Buffer
	NewLogger(&b, "sbxnet", "json", slog.LevelInfo).Warn("slow", "mtu", 1500)
	var got struct {
		Level, Msg string
		MTU        int
	}
	if err := json.Unmarshal(b.Bytes(), &got); err != nil || got.Msg != "slow" || got.MTU != 1500 || got.Level != "WARN" {
		t.Errorf("%q: %+v, %v", b.String(), got, err)
	}
}
