# Large hashes, sorting, regular expressions over strings, from a fixed generator; prints what came out as one digest.
use strict;
use warnings;
use Digest::MD5;

# Perl orders the keys of a hash differently in each run; what is printed goes through a sort.
my $state = 12345;
sub number { $state = ($state * 1103515245 + 12345) % 2147483648; return int($state / 65536) % $_[0]; }
sub word { return join '', map { chr(97 + number(26)) } 1 .. 2 + number(14); }

my %count;
my %list;
for my $i (1 .. 150_000) {
    my $word = word();
    $count{$word}++;
    push @{ $list{ substr($word, 0, 2) } }, $word . $i;
}
delete $count{$_} for grep { /^[aeiou]/ } keys %count;

my $digest = Digest::MD5->new;
for my $key (sort keys %list) {
    my @sorted = sort { length($a) <=> length($b) || $a cmp $b } @{ $list{$key} };
    $digest->add("$key @sorted\n");
}
$digest->add(join ',', map { "$_=$count{$_}" } sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count);

my $text = join ' ', map { word() } 1 .. 100_000;
(my $changed = $text) =~ s/([aeiou])([^aeiou ]+)/<$2$1>/g;
my %ends;
$ends{$1}++ while $changed =~ /(\w\w)>(?= )/g;
$digest->add(join ',', map { "$_$ends{$_}" } sort keys %ends);
$digest->add(join '|', grep { length > 11 } split / /, $changed);
my $built = '';
$built .= substr($text, number(1000), 200) for 1 .. 50_000;
$digest->add($built);
print $digest->hexdigest, "\n";
