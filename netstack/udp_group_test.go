package netstack

import (
	"testing"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
)

// groupLab is a stack with endpoints where DHCP clients send to.
func groupLab(t *testing.T) (l *lab, got *[]string) {
	l, got = newLab(t, nil), new([]string)
	for _, a := range []string{"255.255.255.255:67", "[ff02::1:2]:547"} {
		if _, err := l.BindUDP(port(a), func(d *Datagram) {
			*got = append(*got, d.Src.String()+" > "+d.Dst.String()+" "+string(d.Payload)+" "+d.Station.String())
		}); err != nil {
			t.Fatal(err)
		}
	}
	return l, got
}

func TestDatagramToABoundGroupIsDelivered(t *testing.T) {
	l, got := groupLab(t)
	for _, p := range [][]byte{
		udp("0.0.0.0:68", "255.255.255.255:67", "a"), ttl(1, udp("10.0.2.100:68", "255.255.255.255:67", "b")),
	} {
		l.Input(ethernet(sandboxMAC, header.Broadcast, p), frame.Offload{}, 0)
		l.in(p) // a station may send it in a unicast frame
	}
	l.Input(ethernet(sandboxMAC, header.MulticastMAC(ip("ff02::1:2")), udp("[fe80::1]:546", "[ff02::1:2]:547", "c")), frame.Offload{}, 0)
	l.expect()
	l.told()
	const v4, at = " > 255.255.255.255:67 ", " 02:00:00:00:01:00"
	compare(t, "endpoints", *got, []string{
		"0.0.0.0:68" + v4 + "a" + at, "0.0.0.0:68" + v4 + "a" + at, "10.0.2.100:68" + v4 + "b" + at, "10.0.2.100:68" + v4 + "b" + at,
		"[fe80::1]:546 > [ff02::1:2]:547 c" + at,
	})
}

func TestOtherGroupTrafficIsDroppedInSilence(t *testing.T) {
	for name, c := range map[string]struct {
		packet []byte
		cause  func(*Drops) uint64
	}{
		"port not bound":      {udp("0.0.0.0:68", "255.255.255.255:68", "x"), func(d *Drops) uint64 { return d.Group }},
		"subnet broadcast":    {udp("10.0.2.100:68", "10.0.2.255:67", "x"), func(d *Drops) uint64 { return d.Group }},
		"fragment":            {cut4(udp("10.0.2.100:68", "255.255.255.255:67", string(make([]byte, 200))), 1, 0, 64), func(d *Drops) uint64 { return d.Group }},
		"TCP":                 {segment("10.0.2.100:68", "255.255.255.255:67", header.SYN), func(d *Drops) uint64 { return d.Group }},
		"our own source":      {udp("10.0.2.2:68", "255.255.255.255:67", "x"), func(d *Drops) uint64 { return d.MartianSource }},
		"loopback source":     {udp("127.0.0.1:68", "255.255.255.255:67", "x"), func(d *Drops) uint64 { return d.MartianSource }},
		"no source elsewhere": {udp("0.0.0.0:68", "10.0.2.2:67", "x"), func(d *Drops) uint64 { return d.MartianSource }},
		"no IPv6 source":      {udp("[::]:546", "[ff02::1:2]:547", "x"), func(d *Drops) uint64 { return d.Group }},
		"other IPv6 group":    {udp("[fe80::1]:546", "[ff02::1:3]:547", "x"), func(d *Drops) uint64 { return d.Group }},
		"other IPv6 port":     {udp("[fe80::1]:546", "[ff02::1:2]:548", "x"), func(d *Drops) uint64 { return d.Group }},
	} {
		t.Run(name, func(t *testing.T) {
			l, got := groupLab(t)
			l.in(c.packet)
			l.expect()
			l.told()
			d := l.Stats().Drops
			if c.cause(&d) != 1 || len(*got) != 0 {
				t.Fatalf("delivered %v, drops %+v", *got, d)
			}
		})
	}
}

func TestStationWithoutAddressIsSentTo(t *testing.T) {
	l := newLab(t, nil)
	stranger := header.MAC{2, 0, 0, 0, 9, 9}
	l.SendUDPTo(stranger, port("10.0.2.2:67"), port("10.0.2.101:68"), []byte("offer"))
	l.SendUDPTo(header.Broadcast, port("10.0.2.2:67"), port("255.255.255.255:68"), []byte("nak"))
	l.SendUDPTo(stranger, port("[fe80::2]:547"), port("[fe80::9]:546"), []byte("six"))
	l.expect("10.0.2.2:67 > 10.0.2.101:68 udp 5 [to 02:00:00:00:09:09]",
		"10.0.2.2:67 > 255.255.255.255:68 udp 3 [to ff:ff:ff:ff:ff:ff]",
		"[fe80::2]:547 > [fe80::9]:546 udp 3 [to 02:00:00:00:09:09]")
	for _, m := range []header.MAC{{}, {1}, stackMAC} {
		l.SendUDPTo(m, port("10.0.2.2:67"), port("10.0.2.101:68"), []byte("x"))
	}
	l.SendUDPTo(stranger, port("10.0.2.2:67"), port("10.0.2.101:68"), make([]byte, 1473))
	l.expect()
	if d := l.Stats().Drops; d.NoRoute != 3 || d.TooBig != 1 {
		t.Fatalf("%+v", d)
	}
}
