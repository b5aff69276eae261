#!/usr/bin/env bash
# Runs the tests of the program and of what it is made of with either kind of link, 1 and 4 queues, and offloads left
# out. By hand, as root or an ordinary user: it takes hours.
#
#   cmd/sbxnet/e2e/matrix.sh [-s each|pairs|all] [-r] [-j JOBS] [-p PACKAGES] [-c COMBINATIONS] [-l] [-- TEST FLAGS]
#
# -s  which offloads are left out: none, each one, and all five (each, the default: 7 for each link and number of queues);
#     any two as well, and all but one (pairs: 22); any number of them (all: 32). With the last two, e2e runs its core
#     only: see below.
# -r  with the race detector, also in the program that e2e runs
# -j  so many runs at once; they mostly wait, so one for each core is none too many
# -p  packages, -c combinations: extended regular expressions, of paths such as portfwd/kerneltest, and of choices such as
#     "link=tap num-network-channels=4 gso=false splice=false"
# -l  lists the runs, and runs nothing
#
# Published connections go over the link, too (splice=false); with all offloads, the program is run as its users do as well.
# WRAP, if set, is a command that each run is given to. What a failed run has printed is in the directory that is named at
# the end.
set -euo pipefail
cd "$(dirname "$0")/../../.."
packages=(cmd/sbxnet cmd/sbxnet/e2e portfwd portfwd/kerneltest userns)
switches=(gso software-gso gro tx-checksum-offload rx-checksum-offload)

# The core of e2e: what carries bytes, under each of the names, and is done in half a minute.
core='^Test(HundredMegabytes|Refused|RunningOut|WhatTheCommandSent|TwentySandboxes|ThousandConnections|ServerIsReached'
core+='|HostLoopback|DNSFollows|PublishedPort|PublishedUDP|RemoteClients|Range|MTU|PingWorks|UnservedPort|AttachGives'
core+='|PcapIsWritten|CompatPasta(Outbound|HostLoopback|Captures)|CompatRootlesskitHasOurNetwork|CompatSlirp4netns(TakesOver|API|TAPDescriptor))'
# What goes through the combinations itself.
itself='^Test(SpeedOffloadsInEachCombination|CompatLinkIsWhatIsBuiltIn)'

only=. which=. set=each race= jobs=1 list=
while getopts s:rj:p:c:l option; do
  case $option in
    s) set=$OPTARG ;;
    r) race=-race ;;
    j) jobs=$OPTARG ;;
    p) only=$OPTARG ;;
    c) which=$OPTARG ;;
    l) list=yes ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))

# What a combination may leave out of the switches, by how many that are.
case $set in
  each) sizes='0 1 5' ;;
  pairs) sizes='0 1 2 4 5' ;;
  all) sizes='0 1 2 3 4 5' ;;
  *) echo "-s $set: use each, pairs or all" >&2; exit 2 ;;
esac

combinations() {
  local link queues off
  for link in tap packet; do
    for queues in 1 4; do
      for off in $(seq 0 31); do
        local choice="link=$link num-network-channels=$queues" size=0 i
        for i in 0 1 2 3 4; do
          ((off >> i & 1)) || continue
          choice+=" ${switches[i]}=false"
          size=$((size + 1))
        done
        [[ " $sizes " == *" $size "* ]] || continue
        ((size > 0)) || echo "$choice"
        echo "$choice splice=false"
      done
    done
  done
}

# One line for each run: the package, and the choice.
runs() {
  local choice package
  combinations | while read -r choice; do
    [[ $choice =~ $which ]] || continue
    for package in "${packages[@]}"; do
      [[ $package =~ ^($only)$ || $only == . ]] || continue
      [[ $package/$choice != portfwd/kerneltest/link=packet* ]] || continue # each of its tests has both kinds
      [[ $package/$choice == cmd/* || $choice == *splice=false ]] || continue
      echo "$package $choice"
    done
  done
}

if [ -n "$list" ]; then
  runs
  exit
fi

binaries=$(mktemp -d "${TMPDIR:-/tmp}/sbxnet-matrix.XXXXXX")
chmod 755 "$binaries"
for package in "${packages[@]}"; do
  [[ $package =~ ^($only)$ || $only == . ]] || continue
  # The tag has the program choose what its flags do not; what e2e builds has it without.
  ${WRAP:-} go test -c $race -tags linktest -o "$binaries/${package//\//_}.test" "./$package"
done

one() {
  local package=$1 choice=$2 began=$SECONDS
  shift 2
  local name=${package//\//_} flags=(-test.skip "$itself" -test.timeout 20m)
  local said="$binaries/$name $choice.log"
  [[ $package != cmd/sbxnet/e2e || $set == each ]] || flags+=(-test.run "$core")
  if (cd "$package" && SBXNET_TEST_LINK=$choice ${WRAP:-} "$binaries/$name.test" "${flags[@]}" "$@") >"$said" 2>&1 </dev/null; then
    echo "ok   $((SECONDS - began))s $package: $choice"
    rm "$said"
  else
    echo "FAIL $((SECONDS - began))s $package: $choice: $(grep -o -- '--- FAIL: [^ ]*' "$said" | cut -d' ' -f3 | paste -sd' ')"
  fi
}
export -f one
export binaries itself core set

began=$SECONDS
runs | sed 's/ /\n/' | tr '\n' '\0' | xargs -0 -r -n 2 -P "$jobs" bash -c 'one "${@: -2}" "${@:1:$#-2}"' one "$@" | tee "$binaries/runs"
ran=$(wc -l <"$binaries/runs") failed=$(grep -c ^FAIL "$binaries/runs" || true)
rm -f "$binaries"/*.test "$binaries/runs"
rmdir "$binaries" 2>/dev/null || echo "what failed said: $binaries"
echo "$ran runs in $((SECONDS - began))s, $failed failed"
((ran > 0 && failed == 0))
