SELECT 'not there or not valid: ' || want FROM unnest(ARRAY['a_b', 'b_a_fkey', 'self_parent_fkey',
    'leaf_a_fkey']) want
WHERE NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conname = want AND convalidated);
