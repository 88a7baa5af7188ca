# SPDX-License-Identifier: MIT
# What the recorder watches perl do: words into hashes of arrays, regular expressions, sorting, joining.
use strict;
use warnings;

open(my $in, '<', $ARGV[0]) or die "$ARGV[0]: $!";
my @lines = <$in>;
close($in);
my $total = 0;
for my $turn (1 .. 30) {
	my (%where, %count);
	for my $i (0 .. $#lines) {
		for my $word ($lines[$i] =~ /(\w+)/g) {
			push @{ $where{ lc $word } }, $i;
			$count{ substr($word, 0, 3) . $turn % 4 }++;
		}
	}
	my @order = sort { @{ $where{$b} } <=> @{ $where{$a} } || $a cmp $b } keys %where;
	my $report = join(",", map { "$_=" . scalar @{ $where{$_} } } @order);
	(my $quoted = $report) =~ s/([a-f]+)/<$1>/g;
	$total += length($quoted) + keys %count;
}
print "$total\n";
