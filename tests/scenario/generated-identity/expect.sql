SELECT 'identity is lost: ' || attrelid::regclass || '.' || attname FROM pg_attribute
WHERE (attrelid, attname) IN (('g'::regclass, 'id'), ('d'::regclass, 'id')) AND attidentity = ''
UNION ALL SELECT 'generated is lost: ' || attname FROM pg_attribute
WHERE attrelid = 'g'::regclass AND attname IN ('b', 'd') AND attgenerated = '';
