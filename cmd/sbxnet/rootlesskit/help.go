package rootlesskit

// usage is the answer to --help. Callers search it for the names of flags.
const usage = `rootlesskit [flags] CMD [ARG...] runs CMD as the root of a user and mount namespace of its own.
This is sbxnet, which behaves as RootlessKit does and has a network of its own.

  rootlesskit --net=slirp4netns --copy-up=/etc --disable-host-loopback \
      --port-driver=builtin -p 127.0.0.1:8080:80/tcp CMD

Network
  --net=host|none|NAME            the host's (default), loopback only, or for any other NAME sbxnet's
  --mtu=BYTES                     of its interface (default: 65520)
  --cidr=BLOCK                    its IPv4 network (default: 10.0.2.0/24, or the next one free)
  --ifname=NAME                   of its interface (default: tap0)
  --ipv6                          IPv6 too, in fd00::/64
  --disable-host-loopback         do not let it reach the host's 127.0.0.1 by way of the gateway
  --detach-netns                  CMD stays in the host's network; the new one is "netns" in the state directory

Ports
  --port-driver=none|implicit|NAME  no ports (default); those that something listens on, with
                                  --net=pasta; or for any other NAME those that -p and rootlessctl name.
                                  Clients keep their addresses.
  -p, --publish=IP:PORT:[IP:]PORT/PROTO   let the host reach a port; repeatable

Files and namespaces
  --state-dir=DIR                 for the API socket and the like (default: a new one)
  --copy-up=DIR                   make DIR writable: a tmpfs with links to what is in it; repeatable
  --copy-up-mode=tmpfs+symlink    the only one
  --propagation=KIND              of mounts: rprivate (default), rslave, rshared
  --pidns, --cgroupns, --utsns, --ipcns   a namespace of that kind
  --reaper=auto|true|false        without effect: who is orphaned is reaped
  --subid-source=auto|dynamic|static   who knows the user's subordinate IDs: getsubids; /etc/subuid and
                                  /etc/subgid; or the one that finds some, in this order (auto)
  --evacuate-cgroup2=NAME         move all of the cgroup into NAME within it, so that CMD can manage the rest;
                                  with --pidns and --cgroupns

Accepted, and without effect: sbxnet runs no other program and has its own ways
  --slirp4netns-binary, --slirp4netns-sandbox, --slirp4netns-seccomp, --pasta-binary, --pesto-binary,
  --vpnkit-binary, --lxc-user-nic-binary, --lxc-user-nic-bridge,
  --source-ip-transparent, --source-ip-transparent-backend

Other
  --debug                         say more
  --print-semver=major|minor|patch  of the RootlessKit that this behaves as
  -h, --help, -v, --version

The exit status is CMD's, 128+n for signal n, and 1 if rootlesskit itself fails.
`
