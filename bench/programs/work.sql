-- SPDX-License-Identifier: MIT
-- What the recorder watches sqlite3 do: inserts, an index, joins, updates, deletes, text, a transaction undone.
create table item (id integer primary key, name text, weight integer, note text);
create table part (item integer, seq integer, body text);
insert into item
  with recursive n(i) as (select 1 union all select i + 1 from n where i < 15000)
  select i, 'item ' || i, i * 7919 % 1000, hex(i * 104729) || printf('%0*d', i % 60, i) from n;
create index item_weight on item (weight, name);
insert into part
  select id, weight % 5, note || name from item union all select id, 9, upper(name) from item;
select weight, count(*), max(name), group_concat(id) from item group by weight order by 2 desc, 1 limit 20;
select i.name, count(p.body), sum(length(p.body)) from item i join part p on p.item = i.id
  where i.weight between 100 and 400 group by i.id order by 3 desc, 1 limit 10;
update item set note = note || ' again' where weight % 3 = 0;
delete from part where item % 4 = 1;
begin;
update item set name = replace(name, 'item', 'thing');
rollback;
select distinct substr(note, 1, 3) from item order by 1 limit 10;
select count(*), sum(length(body)) from part where body like '%item%';
