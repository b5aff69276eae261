#!/usr/bin/env bash
# Runs the tests of the program and of the forwarder with either kind of link, 1 and 4 queues, and every offload, each
# one left out in turn, and none. By hand, as root or an ordinary user: it takes an hour or two.
#
#   cmd/sbxnet/e2e/matrix.sh [-p PACKAGES] [-c COMBINATIONS] [-- FLAGS OF THE TEST BINARIES]
#
# PACKAGES and COMBINATIONS are extended regular expressions: of paths such as portfwd/kerneltest, and of choices such as
# "link=tap num-network-channels=4 gso=false". WRAP, if set, is a command that each run is given to. What a failed run has
# printed is in the directory that is named at the end.
set -euo pipefail
cd "$(dirname "$0")/../../.."
only=. which=.
while getopts p:c: option; do
  case $option in
    p) only=$OPTARG ;;
    c) which=$OPTARG ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))

# Left out are the other names of sbxnet, which have no flags for links, and what goes through the combinations itself.
packages=(cmd/sbxnet cmd/sbxnet/e2e portfwd portfwd/kerneltest)
left_out='^Test(Compat|SpeedOffloadsInEachCombination)'
switches=(gso software-gso gro tx-checksum-offload rx-checksum-offload)

combinations() {
  local link queues switch
  for link in tap packet; do
    for queues in 1 4; do
      local base="link=$link num-network-channels=$queues"
      echo "$base"
      for switch in "${switches[@]}"; do echo "$base $switch=false"; done
      echo "$base$(printf ' %s=false' "${switches[@]}")"
    done
  done
}

binaries=$(mktemp -d "${TMPDIR:-/tmp}/sbxnet-matrix.XXXXXX")
for package in "${packages[@]}"; do
  [[ $package =~ ^($only)$ || $only == . ]] || continue
  ${WRAP:-} go test -c -o "$binaries/${package//\//_}.test" "./$package"
done

ran=0 failed=0
while read -r choice; do
  [[ $choice =~ $which ]] || continue
  for package in "${packages[@]}"; do
    binary=$binaries/${package//\//_}.test
    [ -e "$binary" ] || continue
    [[ $package/$choice == portfwd/kerneltest/link=packet* ]] && continue # each of its tests has both kinds
    said="$binaries/${package//\//_} $choice.log" began=$SECONDS
    if (cd "$package" && SBXNET_TEST_LINK=$choice ${WRAP:-} "$binary" -test.skip "$left_out" -test.timeout 10m "$@") >"$said" 2>&1 </dev/null; then
      echo "ok   $((SECONDS - began))s $package: $choice"
      rm "$said"
    else
      echo "FAIL $((SECONDS - began))s $package: $choice: $(grep -o -- '--- FAIL: [^ ]*' "$said" | cut -d' ' -f3 | paste -sd' ')"
      failed=$((failed + 1))
    fi
    ran=$((ran + 1))
  done
done < <(combinations)
rm -f "$binaries"/*.test
rmdir "$binaries" 2>/dev/null || echo "what failed said: $binaries"
echo "$ran runs, $failed failed"
((ran > 0 && failed == 0))
